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
from city.sources.outcomes import MessageResult, outcomes
from city_assets.environment.sources import SENSOR_COMMUNITY
from tests.city.sources.test_mapping import STATION, message

NOW = datetime(2026, 11, 27, tzinfo=UTC)
AIR = replace(STATION, name="air", when={"kind": ("air",)}, measures={"temperature": At("air.t", unit="°F")})
WIND = replace(STATION, name="wind", when={"kind": ("wind", "gust")}, measures={"speed": At("wind", unit="km/h")})


def map_all(*payloads: bytes) -> list[MessageResult]:
    return outcomes([AIR, WIND], payloads, ["stations/roof/x"] * len(payloads), "UTC", NOW)


def test_a_message_belongs_to_the_first_source_that_takes_it() -> None:
    air, wind, other, broken, bad = map_all(
        message(kind="air"), message(kind="gust"), message(kind="rain"), message(kind="wind", wind="strong"), b"nan"
    )
    assert (air.source, wind.source, broken.source) == ("air", "wind", "wind")
    assert [json.loads(event.message)["type"] for event in air.events + wind.events] == ["temperature", "speed"]
    assert air.events[0].key == b"roof-7-temperature"
    assert other.reasons == ["message: of no kind that a source takes (air, wind)"]
    assert broken.reasons == ['wind: got "strong" (text); expected a JSON number']
    assert bad.reasons[0].startswith("message: not JSON")


def test_a_message_that_cannot_be_mapped_is_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that makes a library panic: it must not stop those beside it, nor come again for ever."""
    whole = outcomes_module.map_messages

    def fragile(source: Source, payloads: Sequence[bytes], *rest: Any) -> Any:
        if b"poison" in b"".join(payloads):
            raise PanicException("a fault")
        return whole(source, payloads, *rest)

    monkeypatch.setattr(outcomes_module, "map_messages", fragile)
    good, bad, other = map_all(message(kind="air"), message(kind="air", poison=1), message(kind="wind"))
    assert [len(result.events) for result in (good, bad, other)] == [1, 0, 1]
    assert bad.reasons == ["message: cannot be mapped: PanicException: a fault"]


def test_a_batch_with_one_faulty_message_is_mapped_in_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call costs about the same, so a call for each message would make a batch a hundred times slower."""
    whole, calls = outcomes_module.map_messages, 0

    def fragile(source: Source, payloads: Sequence[bytes], *rest: Any) -> Any:
        nonlocal calls
        calls += 1
        if b"poison" in b"".join(payloads):
            raise PanicException("a fault")
        return whole(source, payloads, *rest)

    monkeypatch.setattr(outcomes_module, "map_messages", fragile)
    payloads = [message(kind="air", poison=1) if n == 300 else message(kind="air") for n in range(500)]
    results = outcomes([AIR], payloads, ["stations/roof/x"] * 500, "UTC", NOW)
    assert [n for n, result in enumerate(results) if result.reasons] == [300]
    assert all(len(result.events) == 1 for n, result in enumerate(results) if n != 300)
    assert calls < 25


def test_half_of_a_surrogate_pair_stops_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, calls = outcomes_module.map_messages, 0

    def counted(*rest: Any) -> Any:
        nonlocal calls
        calls += 1
        return whole(*rest)

    monkeypatch.setattr(outcomes_module, "map_messages", counted)
    poison = b'{"esp8266id":"\\ud800","sensordatavalues":{}}'
    good = SENSOR_COMMUNITY.sample.encode()
    results = outcomes([SENSOR_COMMUNITY], [good, poison, good], (), "UTC", NOW)
    assert [len(result.events) for result in results] == [5, 0, 5]
    assert results[1].reasons == ["esp8266id: got a text with half of a surrogate pair; expected a text"]
    assert calls == 1


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
    (result,) = outcomes([listed], [json.dumps(items).encode()], [], "UTC", NOW)
    assert [event.key for event in result.events] == [b"a"]
    assert result.reasons == ["item 1: at: soon is not an ISO 8601 time such as 2026-11-27T10:00:00Z"]
