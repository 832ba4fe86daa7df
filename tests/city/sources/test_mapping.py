"""Sources: what becomes of messages of other shapes, whole batches at once and one by one."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from city.contracts import Contract, Field, Quantities, Quantity
from city.sources.mapping import MappedFrame, map_messages, to_json
from city.sources.model import Always, At, Joined, Part, Source, SourceError, Value

READINGS = Contract(
    name="readings",
    topic="readings",
    version=1,
    description="What a sensor reads.",
    key="sensor_id",
    event_time="timestamp",
    fields=(
        Field(name="timestamp", kind="timestamp", description="when"),
        Field(name="sensor_id", kind="string", description="which"),
        Field(name="type", kind="string", choices=("temperature", "speed"), description="what"),
        Field(name="value", kind="float", description="how much, in `unit`"),
        Field(name="unit", kind="string", description="the unit of `type`"),
        Field(name="battery", kind="integer", nullable=True, unit="%", description="its battery", within="state"),
        Field(name="is_indoors", kind="boolean", nullable=True, description="where it stands"),
    ),
    quantities=Quantities(
        value="value",
        unit="unit",
        by="type",
        choices=(
            Quantity(name="temperature", unit="°C", minimum=-50, maximum=60, description="air"),
            Quantity(name="speed", unit="m/s", minimum=0, maximum=80, description="wind"),
        ),
    ),
)
STATION = Source(
    name="station",
    contract=READINGS,
    description="A weather station.",
    documentation="https://example.com",
    sample="{}",
    mqtt="stations/<place>/+",
    names={"device": At("device.id"), "place": Part("place")},
    fields={
        "timestamp": At("at", zone="America/New_York"),
        "sensor_id": Joined("{place}-{device}-{type}"),
        "battery": At("device.battery"),
        "is_indoors": At("where", words={"in": True, "out": False}),
    },
    measures={"temperature": At("air.t", unit="°F"), "speed": At("wind", unit="km/h")},
)


def message(**changes: Any) -> bytes:
    content = {"at": "2026-11-27T10:00:00", "device": {"id": 7, "battery": 80}, "air": {"t": 68}, "wind": 36.0}
    return json.dumps(content | changes).encode()


def map_station(source: Source, *payloads: bytes, topic: str = "stations/roof/x") -> MappedFrame:
    return map_messages(source, payloads, [topic] * len(payloads))


def reasons(source: Source, payload: bytes) -> list[str]:
    """Alone and among messages that are well: the reasons must be the same, and the others must not suffer."""
    alone = map_station(source, payload).rejected
    among = map_station(source, message(), payload, message())
    assert set(among.rejected) == {1}
    assert among.events["_row"].unique().sort().to_list() == [0, 2]
    assert among.rejected[1] == alone[0]
    return alone[0]


def test_each_measure_is_an_event_in_the_units_of_the_contract() -> None:
    mapped = map_station(STATION, message(where="out"), message(wind=None), message(air={}, extra=[1]))
    at = datetime(2026, 11, 27, 15, tzinfo=UTC)
    assert mapped.rejected == {}
    assert mapped.events.rows() == [
        (at, "roof-7-temperature", "temperature", 20.0, "°C", 80, False, 0),
        (at, "roof-7-speed", "speed", 10.0, "m/s", 80, False, 0),
        (at, "roof-7-temperature", "temperature", 20.0, "°C", 80, None, 1),
        (at, "roof-7-speed", "speed", 10.0, "m/s", 80, None, 2),
    ]
    first = json.loads(to_json(READINGS, mapped.events.drop("_row"))[0])
    assert first["timestamp"] == "2026-11-27T15:00:00.000000Z"
    assert first["state"] == {"battery": 80}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"online", "message: not JSON"),
        (b"\xff", "message: not UTF-8 at byte 0"),
        (b"[]", "message: got a list; expected an object"),
        (b"\xef\xbb\xbf{}", "message: not JSON"),
        (message(device={"id": {"a": 1}}), "device.id: got an object; expected a text"),
        (message(at="yesterday"), "at: yesterday is not an ISO 8601 time"),
        (message(at=None), "timestamp: nothing at at"),
        (message(where="roof"), "where: roof is not one of in, out"),
        (message(wind=None, air=None), "message: has none of temperature, speed"),
        (message(device={}), "sensor_id: {place}-{device}-{type} has a missing part"),
    ],
)
def test_a_message_that_cannot_be_read_has_a_reason_that_names_the_place(payload: bytes, expected: str) -> None:
    assert reasons(STATION, payload)[0].startswith(expected)


@pytest.mark.parametrize("wrong", ["68", "warm", [1], 10**400])
def test_a_measure_of_a_wrong_type_is_named_and_the_others_are_events(wrong: object) -> None:
    mapped = map_station(STATION, message(), message(air={"t": wrong}), message(air={"t": wrong}, wind=None))
    assert mapped.events["type"].to_list() == ["temperature", "speed", "speed"]
    assert mapped.events["_row"].to_list() == [0, 0, 1]
    assert mapped.rejected.keys() == {1, 2}
    assert len(mapped.rejected[1]) == len(mapped.rejected[2]) == 1
    assert mapped.rejected[1][0].startswith("air.t: got ")


def test_one_wrong_item_of_a_list_is_named_and_the_others_are_events() -> None:
    listed = replace(
        STATION,
        mqtt=None,
        items="data",
        names={},
        measures={"temperature": At("t")},
        fields={"timestamp": At("at"), "sensor_id": At("id")},
    )
    item = {"at": "2026-11-27T10:00:00Z", "id": "a", "t": 20}
    items = [item, item | {"id": [1]}, "noise", item | {"t": "warm"}, item | {"at": "soon"}, item | {"id": "b"}]
    mapped = map_messages(listed, [json.dumps({"data": items}).encode()])
    assert mapped.events["sensor_id"].to_list() == ["a", "b"]
    assert mapped.rejected[0] == [
        "item 1: id: got a list; expected a text",
        'item 2: got "noise" (text); expected an object',
        'item 3: t: got "warm" (text); expected a JSON number',
        "item 4: at: soon is not an ISO 8601 time such as 2026-11-27T10:00:00Z",
    ]


def test_a_device_of_many_kinds_may_have_no_measure_and_a_name_with_spaces() -> None:
    mapped = map_station(replace(STATION, is_optional=True), message(wind=None, air=None), message())
    assert (mapped.rejected, mapped.ignored) == ({}, [])
    assert mapped.events["_row"].to_list() == [1, 1]
    assert mapped.events["sensor_id"][0] == "roof-7-temperature"
    spaced = map_messages(STATION, [message()], ["stations/Living Room/x"])
    assert spaced.events["sensor_id"][0] == "Living-Room-7-temperature"


def test_without_topics_their_parts_are_missing() -> None:
    mapped = map_messages(STATION, [message()])
    assert mapped.events.is_empty()
    assert mapped.rejected[0][0] == "sensor_id: {place}-{device}-{type} has a missing part"
    assert STATION.needs_topic
    free = replace(STATION, names=STATION.names | {"place": Always("roof")})
    assert not free.needs_topic
    assert map_messages(free, [message()]).rejected == {}


def test_a_time_outside_the_years_1_to_9999_is_none() -> None:
    late = replace(STATION, fields=STATION.fields | {"timestamp": At("at", form="epoch_s")})
    mapped = map_station(late, message(at=9_000_000_000_000), message(at=1_795_773_600))
    assert mapped.events["_row"].unique().to_list() == [1]
    assert "is not a number of seconds since 1970" in mapped.rejected[0][0]
    assert map_station(STATION, message(at="+262142-01-01T00:00:00Z")).events.is_empty()


def test_a_source_accepts_more_than_strict_json_where_it_says_so() -> None:
    free = replace(STATION, accepts=frozenset({"text", "comma", "nan", "bom"}))
    payloads = [
        message(air={"t": "68"}, wind="36,0"),
        b"\xef\xbb\xbf" + message(),
        message(air={"t": float("nan")}),
        message(air={"t": "unavailable"}),
    ]
    mapped = map_station(free, *payloads)
    assert mapped.rejected == {}
    assert mapped.events["value"].to_list() == [20.0, 10.0, 20.0, 10.0, 10.0, 10.0]
    assert reasons(free, message(wind=None, air={"t": "warm"}))[0].startswith("air.t: warm is not a finite number")


def test_each_item_of_a_list_is_an_event() -> None:
    of_list = replace(
        STATION,
        mqtt=None,
        items="data",
        measures={},
        names={"device": At("^.device.id")},
        fields={
            "timestamp": At("ms", form="epoch_ms"),
            "sensor_id": Joined("{device}-{type}"),
            "type": At("kind", words={"temp": "temperature", "wind": "speed"}),
            "value": At("v"),
            "unit": At("kind", words={"temp": "°C", "wind": "m/s"}),
        },
    )
    items = [{"ms": 1_795_773_600_000, "kind": "temp", "v": 20}, {"ms": 1_795_773_600_500, "kind": "wind", "v": 3.5}]
    mapped = map_messages(of_list, [json.dumps({"device": {"id": "a"}, "data": items}).encode()])
    assert mapped.events.select("sensor_id", "value", "unit").rows() == [
        ("a-temperature", 20.0, "°C"),
        ("a-speed", 3.5, "m/s"),
    ]
    empty = map_messages(of_list, [b'{"data": []}', b'{"data": 5}', b"{}"])
    assert (empty.ignored, empty.events.height) == ([], 0), "an empty list is no fault"
    assert [reasons[0] for reasons in empty.rejected.values()] == [
        "data: got 5 (number); expected a list with items",
        "data: got nothing; expected a list with items",
    ]
    bare = replace(of_list, items="$", names={"device": Always("a")})
    assert map_messages(bare, [json.dumps(items).encode()]).events.height == 2


def test_messages_of_another_kind_are_no_events() -> None:
    only = replace(STATION, when={"kind": ("reading",)})
    mapped = map_station(only, message(kind="reading"), message(kind="status"), message())
    assert (mapped.events["_row"].unique().to_list(), mapped.ignored, mapped.rejected) == ([0], [1, 2], {})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fields": {"timestamp": At("at")}}, "no value for 'sensor_id', which must not be null"),
        ({"fields": dict(STATION.fields) | {"colour": At("c")}}, "'colour' is not a field of readings: timestamp"),
        ({"measures": {"temperature": At("t", unit="°R")}}, "temperature: unknown unit '°R'; known: °C"),
        ({"measures": {"temperature": At("t", unit="bar")}}, "'bar' measures pressure, and '°C' measures temperature"),
        ({"measures": {"noise": At("n")}}, "'noise' is no quantity of readings: temperature, speed"),
        ({"mqtt": "stations/+"}, "place: no level <place> in its MQTT topic"),
        ({"names": {}}, "{place} is no field, and no name of it"),
        ({"names": dict(STATION.names) | {"device": At("device..id")}}, "'device..id' is no path"),
        ({"mqtt": "stations/<place#>/x"}, "the rest of an MQTT topic, as <device#>, stands at its end"),
        ({"ignored_topics": "("}, "ignored_topics '(' is no regular expression"),
        ({"measures": {"speed": At("wind", unit_at="unit")}}, "speed: unit_at, units and unit belong together"),
        (
            {"measures": {"speed": At("wind", unit="m/s", unit_at="unit", units={"kn": "knots"})}},
            "speed: unknown unit 'knots'",
        ),
    ],
)
def test_a_declaration_that_cannot_work_is_refused_when_it_is_made(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(SourceError, match="source 'station'") as error:
        replace(STATION, **changes)
    assert expected in str(error.value)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 200)
    | st.floats(-5, 5)
    | st.sampled_from(["68", "in", "é", "{", "1,5"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["t", "id", "battery"]), inner, max_size=3)
    ),
    max_leaves=4,
)
_MESSAGES = st.fixed_dictionaries(
    {"at": st.sampled_from(["2026-11-27T10:00:00", "2026-11-27T10:00Z", "no", None, 5])},
    optional={"device": _JSON, "air": _JSON, "wind": _JSON, "where": _JSON},
)


@settings(deadline=None)  # a machine with other work takes its time
@given(st.lists(_MESSAGES, min_size=1, max_size=6), st.booleans())
def test_a_batch_has_what_its_messages_have_one_by_one(messages: list[dict[str, Any]], free: bool) -> None:
    source = replace(STATION, accepts=frozenset({"text", "comma"})) if free else STATION
    payloads = [json.dumps(message).encode() for message in messages]
    whole = map_station(source, *payloads)
    for row, payload in enumerate(payloads):
        alone = map_station(source, payload)
        assert whole.rejected.get(row) == alone.rejected.get(0)
        assert_frame_equal(whole.events.filter(_row=row).drop("_row"), alone.events.drop("_row"))


def test_a_value_may_have_a_default() -> None:
    source = replace(STATION, fields=dict(STATION.fields) | {"battery": At("device.battery", default=100)})
    assert map_station(source, message(device={"id": 1})).events["battery"].to_list() == [100, 100]
    assert isinstance(source.fields["battery"], Value)
