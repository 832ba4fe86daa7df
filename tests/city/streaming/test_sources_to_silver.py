"""Each supported shape, as its vendor published it: from MQTT, HTTP or a Kafka topic to the silver table."""

import json
import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from confluent_kafka import Producer

from city.contracts.model import Contract
from city.lake import bronze_path
from city.local_time import local_day, machine_zone
from city.settings import Settings, settings
from city.sources.model import CITY_ZONE, At, Source
from city.sources.registry import sources
from city.streaming.bridge import Bridge
from city.streaming.intake import Intake
from city.streaming.topics import ensure_topics
from city.tables.registry import table_of
from city_assets.environment.contract import SENSORS
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.city.sources.feeds import json_to_feed
from tests.city.streaming.test_bridge import publisher, run
from tests.lakes import house
from tests.live import consume, streaming, until

_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(?P<zone>Z|[+-]\d\d:\d\d)?(?=\")")
DEVICES = {"zigbee2mqtt": "kitchen/sensor 1", "tasmota": "balcony", "tasmota_fahrenheit": "attic"}
"""What stands for the names in a source's MQTT topic."""
SOURCES = sources(settings())
EXPECTED = {
    "city_traffic": {"traffic_3_traffic", "traffic_3_speed"},
    "city_environment": {"env_2_temperature", "env_2_humidity", "env_2_air_quality"},
    "city_utility": {"utility_4_consumption", "utility_4_voltage", "utility_4_current"},
    "the_things_stack": {"dev1_temperature"},
    "zigbee2mqtt": {"kitchen-sensor-1_temperature", "kitchen-sensor-1_humidity"},
    "tasmota": {"balcony_temperature", "balcony_humidity"},
    "tasmota_fahrenheit": {"attic_temperature", "attic_humidity"},
    "sensor_community": {f"1234567_{name}" for name in ("pm10", "pm2_5", "temperature", "humidity", "pressure")},
    "ngsi": {f"device-0A3478_{name}" for name in ("temperature", "humidity", "pressure", "wind")},
    "openaq": {"openaq_3919"},
    "gtfs_vehicles": {"3106"},
}
"""The keys that silver has of each source's published message."""


def sample_of_now(source: Source, now: datetime) -> str:
    """The published message, with the present in place of its times, and a device of its own."""
    naive = {v.zone for v in source.fields.values() if isinstance(v, At)} - {"UTC"}
    zone = ZoneInfo("America/New_York" if CITY_ZONE in naive else machine_zone())

    def present(match: re.Match[str]) -> str:
        moment = now if match["zone"] else now.astimezone(zone).replace(tzinfo=None)
        return moment.isoformat(timespec="seconds").replace("+00:00", "Z")

    return _ISO.sub(present, source.sample).replace("12844574", str(int(now.timestamp()))[:8])


def own(contract: Contract, suffix: str) -> Contract:
    """The contract with a topic of this test, whose table is that of the domain."""
    return replace(contract, topic=f"{contract.topic}-{suffix}", mqtt=None, partitions=1, windows=())


@pytest.fixture
def mapped(stack: Settings) -> list[Source]:
    suffix = uuid.uuid4().hex[:8]
    contracts = {c.name: own(c, suffix) for c in (SENSORS, VEHICLE_POSITIONS)}
    ensure_topics(stack.kafka, contracts.values())

    def moved(source: Source) -> Source:
        mqtt = f"{suffix}/{source.mqtt}" if source.mqtt else None
        kafka = f"{source.kafka}-{suffix}" if source.kafka else None
        return replace(source, contract=contracts[source.contract.name], mqtt=mqtt, kafka=kafka)

    return [moved(source) for source in SOURCES]


def test_each_shape_reaches_silver(stack: Settings, mapped: list[Source]) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    assert {source.name for source in mapped} == EXPECTED.keys(), "a source without a test"
    deliver(stack, mapped, now)
    ids: dict[str, set[str]] = {}
    for contract in {source.contract.name: source.contract for source in mapped}.values():
        wanted = set().union(*(EXPECTED[s.name] for s in mapped if s.contract is contract))
        with streaming(contract, stack, ()):
            until(lambda c=contract, w=wanted: w <= keys(pl.scan_delta(str(bronze_path(stack.lake, c))), c), 60)
        lake, silver = house(stack), table_of(f"silver/{contract.name}")
        lake.build(silver, [local_day(now, stack.timezone)])
        ids[contract.name] = keys(pl.scan_delta(str(lake.path(silver.id))), contract)
        assert ids[contract.name] == wanted


def keys(rows: pl.LazyFrame, contract: Contract) -> set[str]:
    return set(rows.select(contract.key).collect()[contract.key])


def deliver(stack: Settings, mapped: list[Source], now: datetime) -> None:
    """Sends each source's sample the way that its devices do."""
    by_name = {source.name: source for source in mapped}
    intake = Intake(stack)
    with run(Bridge([], stack, mapped)):
        client = publisher(stack)
        for name, source in by_name.items():
            message = sample_of_now(source, now)
            if source.mqtt:
                client.publish(topic_of(source), message, qos=1).wait_for_publish(10)
            elif source.kafka:
                producer = Producer(stack.kafka.options())
                ensure_topics(stack.kafka, [], [source.kafka])
                producer.produce(source.kafka, json_to_feed(message))
                assert producer.flush(20) == 0
            else:
                receipt = intake.take(source, [message.encode()], datetime.now(UTC))
                assert receipt.rejected == {}, name
        for contract in {source.contract.topic: source.contract for source in mapped}.values():
            wanted = set().union(*(EXPECTED[s.name] for s in mapped if s.contract is contract))
            until(lambda c=contract, w=wanted: w <= set(in_topic(stack, c)), 40)
        client.disconnect()
        client.loop_stop()
    intake.close()


def topic_of(source: Source) -> str:
    """The MQTT topic of a source's sample: the prefix of this test, then a topic as the vendor's devices have it."""
    assert source.mqtt is not None
    return re.sub(r"<(\w+)#?>", DEVICES.get(source.name, "device"), source.mqtt)


def in_topic(stack: Settings, contract: Contract) -> list[str]:
    return [str(event[contract.key]) for event in consume(stack, contract.topic)]


def test_the_present_is_in_the_sample_in_the_form_of_the_vendor() -> None:
    now = datetime(2026, 11, 27, 15, tzinfo=UTC)
    by_name = {source.name: sample_of_now(source, now) for source in SOURCES}
    assert json.loads(by_name["tasmota"])["Time"] == "2026-11-27T10:00:00"
    assert json.loads(by_name["openaq"])["results"][1]["latest"]["datetime"]["utc"] == "2026-11-27T15:00:00Z"
