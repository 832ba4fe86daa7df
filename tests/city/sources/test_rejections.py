"""Each wrong value, item and message is rejected with a reason of its own, and affects no other event."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from city.sources.mapping import map_messages
from city.sources.model import At, Joined, Source
from city_assets.environment.sources import OPENAQ, SENSOR_COMMUNITY
from tests.city.sources.test_mapping import STATION, map_station, message

AT = "2026-11-27T10:00:00Z"
LIST = replace(
    STATION,
    mqtt=None,
    items="data",
    names={},
    measures={"temperature": At("t"), "speed": At("wind")},
    fields={"timestamp": At("at"), "sensor_id": At("id")},
)
"""A source of lists of readings."""


def map_items(source: Source, *items: Any) -> tuple[list[str], list[str]]:
    """Returns the ids of the events of one message with these items, and its reasons."""
    body = list(items) if source.items == "$" else {"data": list(items)}
    mapped = map_messages(source, [json.dumps(body).encode()])
    return mapped.events["sensor_id"].to_list(), mapped.rejected.get(0, [])


def item(**changes: Any) -> dict[str, Any]:
    return {"at": AT, "id": "a", "t": 20} | changes


def community(**values: str) -> bytes:
    readings = [{"value_type": name, "value": value} for name, value in values.items()]
    return json.dumps({"esp8266id": "7", "sensordatavalues": readings}).encode()


def test_a_measure_that_is_no_number_costs_no_other_measure() -> None:
    payloads = [community(SDS_P1="abc", temperature="21.5"), community(SDS_P1="abc")]
    mapped = map_messages(SENSOR_COMMUNITY, payloads, arrived=datetime(2026, 11, 27, tzinfo=UTC))
    assert mapped.events.select("type", "value", "_row").rows() == [("temperature", 21.5, 0)]
    reason = f"{SENSOR_COMMUNITY.measures['pm10'].path}: abc is not a finite number"  # type: ignore[attr-defined]
    assert mapped.rejected == {0: [reason], 1: [reason]}


@pytest.mark.parametrize("accepts", [frozenset[Any](), frozenset({"text"})])
def test_a_rejected_message_has_only_the_reasons_that_are_its_own(accepts: frozenset[Any]) -> None:
    """A name that is joined with the quantity is not missing where there is no quantity."""
    source = replace(STATION, accepts=accepts)
    for wrong in (message(at="soon"), message(wind="x", air={"t": "y"}), message(wind=None, air=None)):
        (reasons,) = map_station(source, wrong).rejected.values()
        assert not any("missing part" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("results", "reasons"),
    [
        (
            ["noise", 7],
            ['item 0: got "noise" (text); expected an object', "item 1: got 7 (number); expected an object"],
        ),
        ([{"parameter": {"name": ["pm25"]}}], ["item 0: parameter.name: got a list; expected a text"]),
        ([{"parameter": {"name": "o3"}, "id": {}}], []),
        ([{"parameter": {}}], []),
    ],
)
def test_an_unreadable_item_of_a_source_that_skips_others_is_rejected(results: list[Any], reasons: list[str]) -> None:
    mapped = map_messages(OPENAQ, [json.dumps({"results": results}).encode()])
    assert mapped.events.is_empty()
    assert mapped.rejected.get(0, []) == reasons


def test_an_unreadable_item_of_a_source_with_a_condition_is_rejected() -> None:
    source = replace(LIST, when={"kind": ("readings",)})
    mapped = map_messages(source, [b'{"kind": "readings", "data": [5]}', b'{"kind": "status", "data": [5]}'])
    assert mapped.rejected == {0: ["item 0: got 5 (number); expected an object"]}
    assert mapped.ignored == [1]


def test_every_reason_against_an_item_names_it() -> None:
    wrong = [item(at="soon"), item(id=None), item(t=None), item(t="warm"), item(t="warm", wind=3)]
    assert map_items(LIST, item(), *wrong, item(id="b")) == (
        ["a", "a", "b"],
        [
            f"item 1: at: soon is not an ISO 8601 time such as {AT}",
            "item 2: sensor_id: nothing at id",
            "item 3: message: has none of temperature, speed",
            'item 4: t: got "warm" (text); expected a JSON number',
            'item 5: t: got "warm" (text); expected a JSON number',
        ],
    )
    assert len(map_items(LIST, *[item(at="soon")] * 50)[1]) == 20


def test_a_joined_name_names_its_item_too() -> None:
    source = replace(LIST, names={"device": At("id")}, fields=dict(LIST.fields) | {"sensor_id": Joined("{device}-x")})
    assert map_items(source, item(id=None))[1] == ["item 0: sensor_id: {device}-x has a missing part"]


def test_a_number_as_text_has_the_fix_in_its_reason() -> None:
    assert map_station(STATION, message(air={"t": "68"})).rejected[0] == [
        'air.t: got "68" (text); expected a JSON number. Add accepts={"text"} to the source, or send a number.'
    ]


@pytest.mark.parametrize(
    ("battery", "reason"),
    [
        ("37.6", "device.battery: got 37.6 (number); expected a whole number"),
        ("9223372036854775808", "device.battery: got 9223372036854775808 (number); expected a whole number of 64 bits"),
        ("1e400", "device.battery: got Infinity (number); expected a whole number"),
        ('"80"', 'device.battery: got "80" (text); expected a JSON number'),
    ],
)
def test_an_integer_that_cannot_be_kept_is_rejected(battery: str, reason: str) -> None:
    payload = message().replace(b'"battery": 80', f'"battery": {battery}'.encode())
    for mapped in (map_station(STATION, payload), map_station(STATION, b"x", payload)):
        assert mapped.events.is_empty()
        assert [*mapped.rejected.values()][-1][0].startswith(reason)


@pytest.mark.parametrize(
    ("battery", "value"),
    [("37", 37), ("37.0", 37), ("9007199254740993", 2**53 + 1), ("-9223372036854775808", -(2**63))],
)
def test_an_integer_is_kept_exactly(battery: str, value: int) -> None:
    payload = message().replace(b'"battery": 80', f'"battery": {battery}'.encode())
    text = message().replace(b'"battery": 80', f'"battery": "{battery}"'.encode())
    for source, sent in ((STATION, payload), (replace(STATION, accepts=frozenset({"text"})), text)):
        mapped = map_station(source, sent)
        assert mapped.rejected == {}
        assert mapped.events["battery"].to_list() == [value, value]


def test_a_text_that_is_no_whole_number_is_rejected_for_an_integer() -> None:
    source = replace(STATION, accepts=frozenset({"text"}))
    payload = message().replace(b'"battery": 80', b'"battery": "37.6"')
    assert map_station(source, payload).rejected == {0: ["device.battery: 37.6 is not a whole number of 64 bits"]}


@pytest.mark.parametrize("word", ["inf", "-Infinity", "1e400", "nan"])
def test_a_number_that_is_not_finite_is_rejected(word: str) -> None:
    text = replace(STATION, accepts=frozenset({"text"}))
    mapped = map_station(text, message(air={"t": word}))
    assert mapped.rejected == {0: [f"air.t: {word} is not a finite number"]}
    assert mapped.events["type"].to_list() == ["speed"]
    huge = map_station(STATION, message(wind=None).replace(b'"t": 68', b'"t": 1e400'))
    assert huge.rejected == {0: ["air.t: got Infinity (number); expected a finite number"]}
    overflow = map_station(
        replace(STATION, measures={"temperature": At("air.t", unit="°F"), "speed": At("wind", unit="km/h")}),
        message(wind=1.7e308),
    )
    assert overflow.rejected == {}
