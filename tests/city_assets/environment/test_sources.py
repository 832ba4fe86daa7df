"""The published messages of other makes, as readings of the contract."""

import json
from datetime import UTC, datetime

import paho.mqtt.client as mqtt
import polars as pl
import pytest

from city.contracts import validity
from city.settings import settings
from city.sources.mapping import map_messages
from city.sources.model import Source
from city.sources.outcomes import outcomes
from city.sources.registry import sources
from city_assets.environment.contract import SENSORS
from city_assets.environment.sources import SOURCES, TASMOTA, ZIGBEE2MQTT

NOW = datetime(2026, 11, 27, 15, tzinfo=UTC)
TOPICS = {
    "the_things_stack": "v3/app1/devices/dev1/up",
    "zigbee2mqtt": "zigbee2mqtt/kitchen",
    "tasmota": "tele/balcony/SENSOR",
    "tasmota_fahrenheit": "tele/balcony/SENSOR",
}
READ = {
    "city_traffic": {"traffic_3_traffic": 37.0, "traffic_3_speed": 43.21},
    "city_environment": {"env_2_temperature": 21.37, "env_2_humidity": 58.0, "env_2_air_quality": 83.0},
    "city_utility": {"utility_4_consumption": 1203.55, "utility_4_voltage": 228.14, "utility_4_current": 17.62},
    "the_things_stack": {"dev1_temperature": 1.0},
    "zigbee2mqtt": {"kitchen_temperature": 27.34, "kitchen_humidity": 44.72},
    "tasmota": {"balcony_temperature": 24.6, "balcony_humidity": 58.2},
    "tasmota_fahrenheit": {"balcony_temperature": -4.11111111111, "balcony_humidity": 58.2},
    "openaq": {"openaq_3919": 5.4},
    "sensor_community": {
        "1234567_pm10": 14.77,
        "1234567_pm2_5": 7.12,
        "1234567_temperature": 21.5,
        "1234567_humidity": 48.23,
        "1234567_pressure": 989.2531,
    },
    "ngsi": {
        "device-0A3478_temperature": 3.3,
        "device-0A3478_humidity": 15.0,
        "device-0A3478_pressure": 938.9,
        "device-0A3478_wind": 2.0,
    },
}


def mapped(source: Source, *messages: str) -> pl.DataFrame:
    payloads = [message.encode() for message in messages]
    frame = map_messages(source, payloads, [TOPICS.get(source.name, "")] * len(payloads), "America/New_York", NOW)
    assert frame.rejected == {}
    return frame.events


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_the_published_message_becomes_valid_readings(source: Source) -> None:
    events = mapped(source, source.sample)
    valid, invalid = validity.split(SENSORS, events.with_columns(_arrived=pl.col("timestamp")))
    assert invalid["reasons"].to_list() == []
    assert dict(valid.select("sensor_id", "value").iter_rows()) == READ[source.name]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_hundred_messages_at_once_are_read_as_one(source: Source) -> None:
    single = mapped(source, source.sample)
    many = mapped(source, *[source.sample] * 100)
    assert many.height == 100 * single.height
    assert many.drop("_row").unique(maintain_order=True).rows() == single.drop("_row").rows()


def test_times_without_a_zone_are_the_citys() -> None:
    assert mapped(TASMOTA, TASMOTA.sample)["timestamp"][0] == datetime(2019, 1, 1, 5, tzinfo=UTC)


def test_a_device_without_a_clock_has_the_time_of_arrival() -> None:
    community = next(source for source in SOURCES if source.name == "sensor_community")
    assert set(mapped(community, community.sample)["timestamp"]) == {NOW}


def test_the_kinds_of_city_sensors_share_a_topic() -> None:
    of_city = [source for source in SOURCES if source.name.startswith("city_")]
    payloads = [source.sample.encode() for source in of_city]
    results = outcomes(of_city, payloads, ["city/sensors/x"] * 3, "UTC", NOW)
    assert [result.source for result in results] == [source.name for source in of_city]
    traffic = json.loads(results[0].events[0].message)
    assert (traffic["latitude"], traffic["longitude"]) == (40.7484, -73.9857)
    assert "location" not in {name for name, value in traffic.items() if value is not None}


def test_all_sources_are_listed() -> None:
    assert {source.name for source in SOURCES} <= {source.name for source in sources(settings())}


@pytest.mark.parametrize("name", ["kitchen", "kitchen/sensor 1", "house/2/kitchen/sensor 1", "bridge sensor", "set"])
def test_a_zigbee_device_may_have_slashes_in_its_name(name: str) -> None:
    payload, topic = ZIGBEE2MQTT.sample.encode(), f"zigbee2mqtt/{name}"
    events = map_messages(ZIGBEE2MQTT, [payload, payload], [topic, "zigbee2mqtt/other"], "UTC", NOW).events
    joined = name.replace("/", "-").replace(" ", "-")
    assert set(events.filter(pl.col("_row") == 0)["sensor_id"]) == {f"{joined}_temperature", f"{joined}_humidity"}
    assert mqtt.topic_matches_sub(ZIGBEE2MQTT.mqtt_filter or "", topic)
    assert not ZIGBEE2MQTT.ignores(topic)
    valid, _ = validity.split(SENSORS, events.with_columns(_arrived=pl.col("timestamp")))
    assert valid.height == 4


def test_a_zigbee_attribute_with_a_topic_of_its_own_is_a_reading() -> None:
    """As Zigbee2MQTT sends them with `output: attribute`, beside attributes that are no readings."""
    messages = {
        "kitchen/sensor 1/temperature": b"27.34",
        "kitchen/sensor 1/humidity": b"44",
        "kitchen/sensor 1/linkquality": b"120",
        "kitchen/sensor 1/last_seen": b"2026-11-27T10:00:00.000Z",
        "kitchen/sensor 1/state": b"ON",
        "kitchen/sensor 1/occupancy": b"true",
        "kitchen/sensor 1/update-progress": b"null",
        "door/temperature": ZIGBEE2MQTT.sample.encode(),
    }
    topics = [f"zigbee2mqtt/{rest}" for rest in messages]
    mapped = map_messages(ZIGBEE2MQTT, list(messages.values()), topics, "UTC", NOW)
    assert mapped.rejected == {}
    assert mapped.events.select("_row", "sensor_id", "value").rows() == [
        (0, "kitchen-sensor-1_temperature", 27.34),
        (1, "kitchen-sensor-1_humidity", 44.0),
        (7, "door-temperature_temperature", 27.34),
        (7, "door-temperature_humidity", 44.72),
    ]
    assert set(mapped.events.filter(pl.col("_row") < 2)["timestamp"]) == {NOW}
    assert not any(ZIGBEE2MQTT.ignores(topic) for topic in topics)


def test_a_zigbee_attribute_that_is_no_number_and_a_message_of_no_device_are_not_readings() -> None:
    messages = {"kitchen/temperature": b"warm", "kitchen": b"27.34", "hall/temperature": b'{"temperature": 2'}
    topics = [f"zigbee2mqtt/{rest}" for rest in messages]
    mapped = map_messages(ZIGBEE2MQTT, list(messages.values()), topics, "UTC", NOW)
    assert mapped.events.is_empty()
    assert mapped.rejected[0] == ['temperature: got "warm" (text); expected a JSON number']
    assert mapped.rejected[1] == ["message: got 27.34 (number); expected an object"]
    assert "message: not JSON" in mapped.rejected[2][0]


@pytest.mark.parametrize(
    "rest",
    [
        "/bridge/state",
        "/bridge/devices",
        "/bridge/response/permit_join",
        "/bridge",
        "/kitchen/availability",
        "/kitchen/sensor 1/availability",
        "/kitchen/set",
        "/kitchen/sensor 1/set/state",
        "/kitchen/get",
        "",
    ],
)
def test_other_topics_of_zigbee2mqtt_carry_no_readings(rest: str) -> None:
    assert ZIGBEE2MQTT.ignores(f"zigbee2mqtt{rest}")
