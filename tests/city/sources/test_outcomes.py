"""Which of several sources a message belongs to, and what each becomes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from polars.exceptions import PanicException

from city.sources import outcomes as outcomes_module
from city.sources.model import At, Source
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


def test_a_message_that_nobody_thought_of_is_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that makes a library panic: it must not stop those beside it, nor come again for ever."""
    whole = outcomes_module.map_messages

    def fragile(source: Source, payloads: Sequence[bytes], *rest: Any) -> Any:
        if b"poison" in b"".join(payloads):
            raise PanicException("nobody thought of this")
        return whole(source, payloads, *rest)

    monkeypatch.setattr(outcomes_module, "map_messages", fragile)
    good, bad, other = told(message(kind="air"), message(kind="air", poison=1), message(kind="wind"))
    assert [len(outcome.events) for outcome in (good, bad, other)] == [1, 0, 1]
    assert bad.reasons == ["message: cannot be mapped: PanicException: nobody thought of this"]


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
