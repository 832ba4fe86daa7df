"""What is sent over HTTP: bodies become messages, what is valid goes to real Kafka, and the rest has its reasons."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from confluent_kafka import KafkaException

from city.contracts.model import Contract, Field
from city.settings import Settings
from city.sources.bodies import BodyError, split_body
from city.sources.mapping import map_messages
from city.sources.model import SourceError
from city.sources.registry import sources
from city.streaming.intake import Intake, NotConfirmed, judge
from city_assets.environment.contract import SENSORS
from city_assets.environment.sources import SENSOR_COMMUNITY
from city_assets.equipment.contract import SENSOR_READINGS
from tests.city.serving.served import serving
from tests.events import NOW, iso, reading
from tests.live import consume


def named(contract: Contract) -> Contract:
    name = f"i{uuid.uuid4().hex[:8]}"
    return replace(contract, name=name, topic=name, windows=(), partitions=1)


def test_a_body_is_one_message_or_a_list_or_lines() -> None:
    one, two = reading(), reading(sensor_id="x")
    for body, media in (
        (json.dumps([one, two]), "application/json"),
        (f"{json.dumps(one)}\n\n{json.dumps(two)}\n", "application/x-ndjson"),
        ("\ufeff" + json.dumps([one, two]), "application/json"),
    ):
        assert [json.loads(m) for m in split_body(body.encode(), media, SENSORS)] == [one, two]
    assert split_body(json.dumps(one).encode(), "application/json", SENSORS) == [json.dumps(one).encode()]


def test_a_row_of_csv_is_a_message_of_the_contracts_types() -> None:
    header = "timestamp,machine_id,sensor_id,temperature,vibration,pressure,power,location,shift"
    body = f"{header}\n2026-05-01T12:00:00Z,m1,s1,61.5,2,6,20.0,Hall 1,morning\n"
    (message,) = split_body(body.encode(), "text/csv", SENSOR_READINGS)
    event = json.loads(message)
    assert event["readings"] == {"temperature": 61.5, "vibration": 2.0, "pressure": 6.0, "power": 20.0}
    assert event["metadata"] == {"location": "Hall 1", "shift": "morning"}
    (untyped,) = split_body(b"a,b\n1,\n", "text/csv", None)
    assert json.loads(untyped) == {"a": "1"}


@pytest.mark.parametrize(
    ("body", "media", "expected"),
    [
        (b"{", "application/json", "not JSON: "),
        (b"{}", "text/plain", "text/plain is not taken; send application/json, application/ld+json"),
        (b"timestamp,colour\n", "text/csv", "columns colour are no fields of sensors; it has timestamp, sensor_id"),
        (b"timestamp,sensor_id,type,value\n", "text/csv", "the header has no column unit, which sensors needs"),
        (
            b"value,timestamp,sensor_id,type,value,unit\n",
            "text/csv",
            "the header has value twice: name each",
        ),
        (b"timestamp,sensor_id,type,value,unit\n1,2\n", "text/csv", "line 2 has 2 cells, and the header 5"),
        (b"\xff\n", "text/csv", "not UTF-8 at byte 0"),
        (b"", "text/csv", "the body is empty"),
        (b"sensor_id;timestamp\na;b\n", "text/csv", "the header has semicolons and no commas"),
        (b"sensor_id, timestamp\na,b\n", "text/csv", "the header has spaces around timestamp"),
        (b"a,,,b\n", "text/csv", "column 2 has no name"),
        (b"[" * 1023 + b"]" * 1023, "application/json", "the JSON is nested too deep"),
    ],
)
def test_a_body_that_cannot_be_split_names_the_place(body: bytes, media: str, expected: str) -> None:
    with pytest.raises(BodyError) as error:
        split_body(body, media, SENSORS)
    assert str(error.value).startswith(expected)


def test_events_of_a_source_are_judged_by_its_contract_too() -> None:
    payload = json.loads(SENSOR_COMMUNITY.sample)
    payload["sensordatavalues"][0]["value"] = "99999"
    events, rejected = judge(SENSOR_COMMUNITY, [json.dumps(payload).encode(), b"nan"], "UTC", NOW)
    assert [event.key for event in events] == [
        b"1234567_pm2_5",
        b"1234567_temperature",
        b"1234567_humidity",
        b"1234567_pressure",
    ]
    assert rejected[0] == ["sensor_id '1234567_pm10': value: pm10 outside 0 to 5000 µg/m³"]
    assert rejected[1][0].startswith("message: not JSON")


def test_a_body_of_many_wrong_messages_is_refused_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("city.streaming.intake._MOST_WRONG", 10)
    monkeypatch.setattr("city.streaming.intake._SLICE", 4)
    good = json.dumps(reading()).encode()
    events, rejected = judge(SENSORS, [good, *[b"1"] * 10, good], "UTC", NOW)
    assert (len(events), list(rejected)) == (2, list(range(1, 11)))
    with pytest.raises(
        BodyError,
        match="more than 10 messages are wrong, and none was taken; message 1: message: a number, not an object",
    ):
        judge(SENSORS, [good, *[b"1"] * 11], "UTC", NOW)


@pytest.fixture
def intake(stack: Settings) -> Iterator[Intake]:
    started = Intake(stack)
    yield started
    started.close()


def test_what_is_valid_is_in_kafka_when_the_answer_comes(stack: Settings, intake: Intake) -> None:
    contract, now = named(SENSORS), datetime.now(UTC)
    good = [json.dumps(reading(timestamp=iso(now), sensor_id=f"s{n}")).encode() for n in range(3)]
    receipt = intake.take(contract, [*good, json.dumps(reading(timestamp="soon")).encode()], now)
    assert (receipt.accepted, receipt.offsets) == (3, {contract.topic: {0: (0, 2)}})
    assert receipt.rejected == {3: ["timestamp: 'soon' is not an ISO 8601 time such as 2026-11-27T10:00:00Z"]}
    assert [event["sensor_id"] for event in consume(stack, contract.topic)] == ["s0", "s1", "s2"]
    with pytest.raises(SourceError, match="no source and no contract 'nobody'; known: chargebacks"):
        intake.target("nobody")


def test_kafka_that_is_away_raises(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("city.streaming.intake._SECONDS", 1.0)
    away, contract = Intake(config.model_copy(update={"kafka_address": "127.0.0.1:9"})), named(SENSORS)
    with pytest.raises(KafkaException):
        away.take(contract, [json.dumps(reading()).encode()], NOW)
    monkeypatch.setattr(away, "_ensure", lambda contracts: None)  # Kafka goes away later
    with pytest.raises(NotConfirmed, match=r"has confirmed 0 of 1 events .*Send the body again"):
        away.take(contract, [json.dumps(reading()).encode()], NOW)


def test_devices_send_over_http(stack: Settings, tmp_path: Path) -> None:
    def post(name: str, body: Any, media: str = "application/json") -> requests.Response:
        return requests.post(f"{url}/ingest/{name}", body, headers={"content-type": media}, timeout=20)

    with serving(stack) as url:
        answer = post("sensor_community", SENSOR_COMMUNITY.sample)
        assert answer.status_code == 200, answer.text
        assert answer.json()["accepted"] == 5
        assert {entry["topic"] for entry in answer.json()["offsets"]} == {SENSORS.topic}
        refused = post("sensors", json.dumps(reading(value="much")))
        assert refused.status_code == 422
        assert refused.json()["reasons"] == [{"message": 0, "reasons": ['value: a string ("much"), not a float']}]
        assert post("nobody", "{}").status_code == 404
        assert post("sensors", "{}", "text/plain").status_code == 415
        assert post("sensors", "{").status_code == 422


def test_each_source_that_may_be_posted_takes_its_sample_and_the_others_say_where_to_publish(config: Settings) -> None:
    intake = Intake(config)
    for source in sources(config):
        if source.needs_topic:
            with pytest.raises(
                SourceError, match=f"{source.name}' reads a part of its MQTT topic .*: publish it there"
            ):
                intake.target(source.name)
        elif source.format == "json":
            sample = source.sample.encode()
            times = map_messages(source, [sample], arrived=NOW).events[source.contract.event_time]
            now = times.max()  # the moment of the sample, so that it is not too old
            assert isinstance(now, datetime), source.name
            events, rejected = judge(intake.target(source.name), [sample], "UTC", now)
            assert rejected == {}, source.name
            assert len(events) == len(times), source.name
    intake.close()


def test_more_messages_than_the_producer_holds_are_all_sent_once(stack: Settings, intake: Intake) -> None:
    now, contract = datetime.now(UTC), replace(named(SENSORS), partitions=1)
    body = [json.dumps(reading(timestamp=iso(now), sensor_id=f"s{n}")).encode() for n in range(120_000)]
    receipt = intake.take(contract, body, now)
    assert (receipt.accepted, receipt.rejected) == (120_000, {})
    assert receipt.offsets == {contract.topic: {0: (0, 119_999)}}


@pytest.mark.parametrize("cell", ["1_0", "nan", "1e999", "99999999999999999999"])
def test_a_cell_that_is_no_number_of_json_is_rejected(cell: str) -> None:
    kind = "integer" if cell.isdigit() else "float"
    contract = replace(SENSORS, fields=(*SENSORS.fields, Field(name="n", kind=kind, nullable=True, description="")))  # type: ignore[arg-type]
    (message,) = split_body(
        f"timestamp,sensor_id,type,value,unit,n\n2026-11-27T10:00Z,a,noise,50,dB,{cell}\n".encode(),
        "text/csv",
        contract,
    )
    _, rejected = judge(contract, [message], "UTC", datetime(2026, 11, 27, 10, tzinfo=UTC))
    assert rejected[0][0].startswith(f'n: a string ("{cell}"), not a {kind}')
