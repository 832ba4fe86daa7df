import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from city.contracts import ContractError, Field
from city.contracts.schema import QUARANTINE, bronze_schema, wire_schema
from city.sources.times import read_times
from city.streaming.decode import decode, parse
from city.streaming.strict_json import inspect
from city_assets.environment.contract import SENSORS
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.events import NOW, encode, later, position, raw, reading


def decoded(
    values: list[bytes | None], contract: Any = VEHICLE_POSITIONS, **more: Any
) -> tuple[pl.DataFrame, pl.DataFrame]:
    rows, rejects = decode(contract, raw(values, **more), {})
    assert dict(rows.schema) == bronze_schema(contract)
    assert dict(rejects.schema) == QUARANTINE
    return rows, rejects


def reasons(message: bytes | None, contract: Any = VEHICLE_POSITIONS) -> list[str]:
    """Why a message is rejected, when it stands alone and when it stands among valid ones."""
    alone, rejects = decoded([message], contract)
    good = encode(reading() if contract is SENSORS else position())[0]
    rows, among = decoded([good, message, good], contract)
    assert among["offset"].to_list() == [1] * rejects.height
    assert among["reasons"].to_list() == rejects["reasons"].to_list()
    assert rows["_offset"].to_list() == ([0, 2] if rejects.height else [0, 1, 2])
    assert rejects["raw"].to_list() == [message] * rejects.height
    assert alone.height + rejects.height == 1
    return [] if rejects.is_empty() else rejects["reasons"][0].to_list()


def test_a_valid_event_becomes_a_typed_row_with_its_cell() -> None:
    rows, rejects = decoded(encode(position()))
    assert rejects.is_empty()
    row = rows.row(0, named=True)
    assert row["timestamp"] == NOW
    assert (row["vehicle_id"], row["speed"], row["trip_id"]) == ("taxi_1", 30.5, "trip_1")
    assert row["cell"] == "882a100d29fffff"
    assert (row["_partition"], row["_offset"], row["_arrived"], row["_watermark"]) == (0, 0, NOW, NOW)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "not JSON"),
        (None, "message: empty"),
        (b"not json", "not JSON"),
        (b'{"vehicle_id": "a"', "not JSON"),
        (b"[1, 2]", "message: an array, not an object"),
        (b"null", "not an object"),
        (b"7", "not an object"),
        (b'{"a":1}{"b":2}', "not JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'{"vehicle_id":"\xff"}', "not UTF-8"),
        (b"{" * 5000, "not JSON"),
    ],
)
def test_what_is_no_json_object_is_rejected(message: bytes | None, reason: str) -> None:
    assert reason in reasons(message)[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"speed": "30"}, 'speed: a string ("30"), not a float'),
        ({"speed": True}, "speed: a boolean (true), not a float"),
        ({"speed": [1]}, "speed: an array, not a float"),
        ({"latitude": None}, "latitude: missing or null"),
        ({"vehicle_id": 5}, "vehicle_id: a number (5), not a string"),
        ({"vehicle_id": {"a": 1}}, "vehicle_id: an object, not a string"),
        ({"trip_id": [""]}, "trip_id: an array, not a string"),
        ({"trip_id": ["trip_1"]}, "trip_id: an array, not a string"),
        ({"vehicle_id": ""}, "vehicle_id: does not match"),
        ({"vehicle_id": "a b "}, "vehicle_id: does not match"),
        ({"vehicle_id": "a\tb"}, "vehicle_id: does not match"),
        ({"vehicle_id": "a\u0007b"}, "vehicle_id: holds a control character"),
        ({"vehicle_id": "a/b"}, "vehicle_id: does not match"),
        ({"vehicle_id": ".."}, "vehicle_id: does not match"),
        ({"trip_id": "a\u0000b"}, "trip_id: holds a control character"),
        ({"trip_id": "x" * 2000}, "trip_id: longer than 1024 bytes"),
        ({"speed": 200.1}, "speed: outside 0 to 200 km/h"),
        ({"speed": -0.1}, "speed: outside 0 to 200 km/h"),
        ({"latitude": 91}, "latitude: outside -90 to 90 °"),
        ({"latitude": 0, "longitude": 0}, "not_null_island"),
        ({"timestamp": "yesterday"}, "timestamp: 'yesterday' is not an ISO 8601 time such as"),
        ({"timestamp": 1777000000}, "timestamp: 1777000000 (seconds since 1970?) is not an ISO 8601 time"),
        ({"timestamp": "2027-05-01T12:00:00Z"}, "timestamp: more than 1 minute ahead"),
        ({"timestamp": "1970-01-01T00:00:00Z"}, "timestamp: more than 30 days old"),
        ({"timestamp": later(61)}, "timestamp: more than 1 minute ahead"),
        ({"colour": "red"}, "colour: not a field of vehicle_positions v3"),
    ],
)
def test_what_the_contract_forbids_is_rejected_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    assert any(reason in text for text in reasons(encode(position(**changes))[0]))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1795648140", "'1795648140' (seconds since 1970?)"),
        ("1795648140000", "'1795648140000' (milliseconds since 1970?)"),
        (1795648140.5, "1795648140.5 (seconds since 1970?)"),
        ("25.11.2026 23:09", "'25.11.2026 23:09'"),
        ("2026-02-30T00:00:00Z", "'2026-02-30T00:00:00Z'"),
    ],
)
def test_the_reason_against_a_time_has_what_was_received_and_what_was_expected(text: object, shown: str) -> None:
    expected = [f"timestamp: {shown} is not an ISO 8601 time such as 2026-11-27T10:00:00Z"]
    assert reasons(encode(position(timestamp=text))[0]) == expected


@pytest.mark.parametrize("vehicle", ["MTA NYCT_4551", "1:0123", "-3_", "tram (old)", "Straßenbahn 7", "7"])
def test_an_identifier_of_another_system_is_taken_as_it_is(vehicle: str) -> None:
    rows, rejects = decode(VEHICLE_POSITIONS, raw(encode(position(vehicle_id=vehicle))), {})
    assert rejects["reasons"].to_list() == []
    assert rows["vehicle_id"].to_list() == [vehicle]


def test_a_number_of_many_digits_is_rejected_and_those_beside_it_are_not() -> None:
    big = b"1" + b"0" * 60
    wide = encode(position(speed=12345))[0] or b""
    values = [position_of(b"1"), wide.replace(b"12345", b"1" + b"0" * 400), position_of(big), position_of(b"2")]
    rows, rejects = decode(VEHICLE_POSITIONS, raw(values), {})
    assert rows["speed"].to_list() == [1.0, 2.0]
    assert rejects["reasons"].to_list() == [
        ["speed: a number of 401 digits, too large"],
        ["speed: outside 0 to 200 km/h"],
    ]


@pytest.mark.parametrize("digits", [19, 20, 39, 40, 41, 60, 308, 309, 310, 400, 4299, 4300, 4301, 20_000])
@pytest.mark.parametrize("form", ["{}", "-{}", "{}.5", "{}e0", "0.{}"])
def test_a_number_of_any_length_costs_no_other_message(digits: int, form: str) -> None:
    number = form.format("9" * digits).encode()
    for others in (0, 3):
        values = [*[position_of(b"1")] * others, position_of(number), *[position_of(b"2")] * others]
        rows, rejects = decode(VEHICLE_POSITIONS, raw([*values]), {})
        if form.startswith("0."):
            assert (rows.height, rejects.height) == (2 * others + 1, 0)
        else:
            assert rows["speed"].to_list() == [1.0] * others + [2.0] * others
            assert rejects["offset"].to_list() == [others]
            assert rejects["raw"].to_list() == [values[others]]
            assert len(rejects["reasons"][0]) == 1


def position_of(speed: bytes) -> bytes:
    return (encode(position(speed=12345))[0] or b"").replace(b"12345", speed)


def test_a_field_that_may_be_null_is_not_null_in_place_of_an_unreadable_time() -> None:
    optional = Field(name="seen", kind="timestamp", nullable=True, description="when it was seen")
    contract = replace(VEHICLE_POSITIONS, fields=(*VEHICLE_POSITIONS.fields, optional))
    batch = raw(encode(position(seen="soon"), position(seen=None), position(seen="2026-05-01T12:00Z")))
    rows, rejects = decode(contract, batch, {})
    assert rows["seen"].is_null().to_list() == [True, False]
    assert rejects["reasons"].to_list() == [["seen: 'soon' is not an ISO 8601 time such as 2026-11-27T10:00:00Z"]]


def test_a_time_without_a_zone_is_in_the_zone_that_its_field_declares() -> None:
    fields = tuple(replace(f, zone="America/New_York") if f.kind == "timestamp" else f for f in SENSORS.fields)
    rows, _ = decode(replace(SENSORS, fields=fields), raw(encode(reading(timestamp="2026-05-01T07:59:30"))), {})
    assert rows["timestamp"].to_list() == [datetime(2026, 5, 1, 11, 59, 30, tzinfo=UTC)]
    with pytest.raises(ContractError, match="field 'at': no time zone 'Mars'; such as Europe/Berlin"):
        Field(name="at", kind="timestamp", zone="Mars", description="")


def test_a_speed_may_be_missing_or_null() -> None:
    event = position()
    messages = [*encode(event | {"speed": None}), *encode({k: v for k, v in event.items() if k != "speed"})]
    rows, rejects = decode(VEHICLE_POSITIONS, raw([*encode(event), *messages]), {})
    assert (rows["speed"].to_list(), rejects.height) == ([30.5, None, None], 0)
    assert [reasons(message) for message in messages] == [[], []]


def test_each_missing_field_is_named() -> None:
    for name in position():
        event = {key: value for key, value in position().items() if key != name}
        texts = reasons(encode(event)[0])
        assert texts == [] if name in ("trip_id", "speed") else texts[0].startswith(f"{name}: missing")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "01", "+1", ".5", "0x10", "1_000"])
def test_numbers_that_json_does_not_have_are_rejected(number: str) -> None:
    message = encode(position())[0].replace(b"30.5", number.encode())  # type: ignore[union-attr]
    assert "not JSON" in reasons(message)[0]


def test_a_key_with_half_a_surrogate_pair_is_rejected_and_can_be_stored() -> None:
    assert reasons(b'{"\\ud800": 1}')[0] == f"\\ud800: not a field of vehicle_positions v{VEHICLE_POSITIONS.version}"


def test_many_wrong_keys_cost_no_more_than_their_bytes() -> None:
    def seconds(keys: int) -> float:
        message = b"{%b}" % b",".join(b'"key%d":1,"key%d":2' % (n, n) for n in range(keys))
        began = time.process_time()
        assert len(reasons(message)) == 20
        return time.process_time() - began

    assert seconds(20_000) < 50 * min(seconds(2_000) for _ in range(3)), "ten times the keys: a quadratic count is 100"


def test_a_fault_of_the_code_is_a_reason_against_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a fault")

    monkeypatch.setattr("city.streaming.decode.inspect", fail)
    assert reasons(b"{") == ["message: it cannot be read (KeyError: 'a fault')"]
    unstorable = dict.fromkeys(wire_schema(VEHICLE_POSITIONS)) | {"speed": object()}
    good = dict.fromkeys(wire_schema(VEHICLE_POSITIONS)) | {"speed": 1.0}
    answers = iter([(good, []), (unstorable, []), (good, [])])
    monkeypatch.setattr("city.streaming.decode.inspect", lambda *_: next(answers))
    frame, refused = parse(VEHICLE_POSITIONS, [b"{", b"{", b"{"])
    assert frame["_row"].to_list() == [0, 2]
    assert "cannot be read" in refused[1][0]


def test_a_key_that_stands_twice_is_rejected_even_with_equal_values() -> None:
    message = encode(position())[0].replace(b'"speed": 30.5', b'"speed":30.5,"speed":30.5')  # type: ignore[union-attr]
    assert reasons(message) == ["speed: stands 2 times"]


@pytest.mark.parametrize(
    "message",
    [
        b'{"vehicle_id" :5,"timestamp":"%s","latitude":40.7,"longitude":-73.9,"speed":1,"trip_id":"t","x":1}',
        b'{"vehicle_id":"a","timestamp":"%s","latitude":40.7,"longitude":-73.9,"speed":1,"x":null}',
        b'{"vehicle_id":"a","timestamp":"%s","latitude":40.7,"longitude":-73.9,"speed":1,"trip_id":5,"x":1}',
        b'{"vehicle_id":"a","timestamp":"%s","latitude":40.7,"longitude":-73.9,"speed":1,"trip\\u005fid":"t","x":1}',
    ],
)
def test_counting_quotes_cannot_be_cheated(message: bytes) -> None:
    assert any(reason.startswith("x: not a field") for reason in reasons(message % later(0).encode()))


def test_a_message_that_is_too_large_is_kept_whole_in_quarantine() -> None:
    message = encode(position(trip_id="x" * 10_000_000))[0]
    assert reasons(message) == [f"message: {len(message):,} bytes, more than 1,000,000"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "write",
    [
        lambda e: json.dumps(e, indent=2),
        lambda e: json.dumps(e, separators=(",", ":")),
        lambda e: json.dumps(e).replace('":', '" \t:'),
        lambda e: " " + json.dumps(dict(reversed(list(e.items())))) + "\r",
        lambda e: json.dumps(e).replace("taxi_1", "\\u0074axi_1"),
        lambda e: json.dumps(e | {"trip_id": 'a "quoted": "\\ thing"'}),
        lambda e: json.dumps(e | {"trip_id": ':null,":'}),
        lambda e: json.dumps(e | {"trip_id": None}),
        lambda e: json.dumps({k: v for k, v in e.items() if k != "trip_id"}),
        lambda e: json.dumps(e | {"speed": 30, "trip_id": "straße 東京"}, ensure_ascii=False),
    ],
)
def test_unusual_but_valid_json_is_accepted(write: Any) -> None:
    message = write(position()).encode()
    assert reasons(message) == []
    rows, _ = decoded([message])
    assert rows["vehicle_id"].to_list() == ["taxi_1"]
    assert rows["trip_id"][0] == json.loads(message).get("trip_id")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-01T12:00:30Z", "2026-05-01 12:00:30"),
        ("2026-05-01T12:00:30.5Z", "2026-05-01 12:00:30.5"),
        ("2026-05-01T14:00:30.123456+02:00", "2026-05-01 12:00:30.123456"),
        ("2026-05-01T14:00:30+0200", "2026-05-01 12:00:30"),
        ("2026-05-01 12:00:30Z", "2026-05-01 12:00:30"),
        ("2026-05-01T12:00:30", "2026-05-01 12:00:30"),
        ("2026-05-01 12:00:30.25", "2026-05-01 12:00:30.25"),
    ],
)
def test_every_usual_way_to_write_iso_8601_is_read(text: str, moment: str) -> None:
    alone = read_times(pl.Series([text]), "UTC")
    mixed = read_times(pl.Series(["2026-05-01T12:00:30Z", text, "no", None]), "UTC")
    expected = pl.Series([moment]).str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us").dt.replace_time_zone("UTC")
    assert alone.to_list() == [mixed[1]] == expected.to_list()
    assert mixed[2] is None
    assert mixed[3] is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"value": 500.5}, "value: traffic outside 0 to 500 vehicles/min"),
        (
            {"type": "noise", "unit": "dB", "sensor_id": "downtown_noise_1", "value": 20},
            "value: noise outside 30 to 140 dB",
        ),
        ({"unit": "dB"}, "unit: not the unit of its type"),
        ({"type": "smell"}, "type: not one of traffic"),
        ({"location": "#1"}, "location: does not match"),
        ({"sensor_id": "a/b"}, "sensor_id: does not match"),
    ],
)
def test_the_range_and_the_unit_follow_from_the_type(changes: dict[str, Any], reason: str) -> None:
    assert any(reason in text for text in reasons(encode(reading(**changes))[0], SENSORS))


def test_every_reason_is_given_not_only_the_first() -> None:
    texts = reasons(encode(position(speed=-1, latitude=100))[0])
    assert {reason.split(":")[0] for reason in texts} == {"speed", "latitude"}


def test_the_watermark_is_each_partitions_running_maximum() -> None:
    times = [later(0), later(-5), later(10), later(3)]
    values = encode(*(position(timestamp=t) for t in times))
    rows, _ = decode(VEHICLE_POSITIONS, raw(values, [0, 1, 0, 1]), {1: int(NOW.timestamp() * 1e6)})
    offsets = [(watermark - NOW).total_seconds() for watermark in rows["_watermark"]]
    assert offsets == [0, 0, 10, 3]


def test_a_large_batch_with_scattered_faults_loses_nothing() -> None:
    values = encode(*(position(trip_id=f"t{number}") for number in range(30_000)))
    bad = {5: b"{", 9_000: b"\xff", 9_001: b'{"speed":"x"}', 20_000: encode(position(extra=1))[0], 29_999: None}
    for index, message in bad.items():
        values[index] = message
    rows, rejects = decoded(values)
    assert rejects["offset"].to_list() == sorted(bad)
    assert rows["trip_id"].to_list() == [f"t{number}" for number in range(30_000) if number not in bad]
    assert rows["_offset"].to_list() == [number for number in range(30_000) if number not in bad]


def test_nothing_gives_nothing() -> None:
    rows, rejects = decoded([])
    assert rows.is_empty()
    assert rejects.is_empty()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_MESSAGE = st.one_of(
    st.binary(max_size=60),
    _JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from([*position(), "other"]), _JSON).map(lambda e: json.dumps(position() | e).encode()),
    st.tuples(st.integers(0, 150), st.binary(max_size=3)).map(
        lambda cut: encode(position())[0][: cut[0]] + cut[1] + encode(position())[0][cut[0] + 1 :]  # type: ignore[index]
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_MESSAGE, min_size=1, max_size=8))
def test_the_columnar_path_agrees_with_reading_one_by_one(messages: list[bytes]) -> None:
    """Whatever comes, each message is either a row or in quarantine, and both readings decide alike."""
    together, rejects = decoded(list(messages))
    assert sorted(together["_offset"].to_list() + rejects["offset"].to_list()) == list(range(len(messages)))
    for offset, message in enumerate(messages):
        event, _ = inspect(VEHICLE_POSITIONS, message)
        accepted = event is not None and decoded([json.dumps(event).encode()])[1].is_empty()
        assert accepted == (offset in together["_offset"].to_list())
