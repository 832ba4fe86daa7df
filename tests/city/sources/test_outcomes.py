"""Which of several sources a message belongs to, and what each becomes."""

import json
from dataclasses import replace
from datetime import UTC, datetime

from city.sources.model import At
from city.sources.outcomes import Outcome, outcomes
from tests.city.sources.test_mapping import STATION, message

NOW = datetime(2026, 11, 27, tzinfo=UTC)
AIR = replace(STATION, name="air", when={"kind": ("air",)}, measures={"temperature": At("air.t", unit="°F")})
WIND = replace(STATION, name="wind", when={"kind": ("wind", "gust")}, measures={"speed": At("wind", unit="km/h")})


def told(*payloads: bytes) -> list[Outcome]:
    return outcomes([AIR, WIND], payloads, ["stations/roof/x"] * len(payloads), "UTC", NOW)


def test_a_message_belongs_to_the_first_source_that_takes_it() -> None:
    air, wind, other, broken, bad = told(
        message(kind="air"), message(kind="gust"), message(kind="rain"), message(kind="wind", wind="strong"), b"nan"
    )
    assert (air.source, wind.source, broken.source) == ("air", "wind", "wind")
    assert [json.loads(event.message)["type"] for event in air.events + wind.events] == ["temperature", "speed"]
    assert air.events[0].key == b"roof-7-temperature"
    assert other.reasons == ["message: of no kind that a source takes (air, wind)"]
    assert broken.reasons == ['wind: a text "strong", not a number']
    assert bad.reasons[0].startswith("message: not JSON")


def test_a_list_may_be_right_in_part() -> None:
    listed = replace(
        STATION,
        mqtt=None,
        items="$",
        names={},
        measures={"temperature": At("t")},
        fields={"timestamp": At("at"), "sensor_id": At("id")},
    )
    items = [{"at": "2026-11-27T10:00Z", "id": "a", "t": 20}, {"at": "soon", "id": "b", "t": 20}]
    (found,) = outcomes([listed], [json.dumps(items).encode()], [], "UTC", NOW)
    assert [event.key for event in found.events] == [b"a"]
    assert found.reasons == ["at: soon is not an ISO 8601 time such as 2026-11-27T10:00:00Z"]
