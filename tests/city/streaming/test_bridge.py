"""The bridge between a real MQTT broker and a real Kafka."""

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from confluent_kafka import Consumer, TopicPartition

from city.contracts.model import Contract
from city.net import split_address
from city.settings import Settings
from city.stack import servers
from city.stack.embedded import await_running
from city.stack.part import Part
from city.stack.state import read_json
from city.streaming.bridge import Bridge, key_of
from city.streaming.topics import ensure_topics
from city_assets.environment.contract import SENSORS
from tests.events import encode, reading
from tests.live import kill, restarted, until


@pytest.fixture
def contract() -> Contract:
    name = f"m{uuid.uuid4().hex[:8]}"
    return replace(SENSORS, name=name, topic=name, mqtt=f"{name}/<location>/<type>", windows=(), partitions=1)


@pytest.fixture
def bridge(stack: Settings, contract: Contract) -> Iterator[Bridge]:
    with run(Bridge([contract], stack)) as found:
        yield found


def publisher(stack: Settings) -> mqtt.Client:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.connect(*split_address(stack.mqtt))
    client.loop_start()
    return client


def publish(stack: Settings, contract: Contract, *values: float) -> None:
    client = publisher(stack)
    topic = f"{contract.name}/downtown/traffic"
    for value in values:
        message = encode(reading(value=value))[0]
        client.publish(topic, message, qos=1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def in_kafka(stack: Settings, topic: str) -> list[tuple[bytes | None, bytes]]:
    consumer = Consumer({"bootstrap.servers": stack.kafka, "group.id": uuid.uuid4().hex})
    partition = TopicPartition(topic, 0, 0)
    _, end = consumer.get_watermark_offsets(partition)
    consumer.assign([partition])
    found: list[tuple[bytes | None, bytes]] = []
    while len(found) < end:
        found += [(message.key(), message.value()) for message in consumer.consume(100, 0.5)]
    consumer.close()
    return found


def test_messages_reach_kafka_unchanged_with_their_key(stack: Settings, contract: Contract, bridge: Bridge) -> None:
    publish(stack, contract, 1, 2, 3)
    found = until(lambda: len(in_kafka(stack, contract.topic)) == 3 and in_kafka(stack, contract.topic))
    assert found == [(b"downtown_traffic_3", encode(reading(value=value))[0]) for value in (1, 2, 3)]
    beat = until(lambda: (b := read_json(stack, "mqtt-bridge.json")) and b["events"] == 3 and b)
    assert (beat["lag"], beat["last_error"]) == (0, None)


def test_it_subscribes_again_after_the_broker_wasrestarted(
    stack: Settings, contract: Contract, bridge: Bridge, stack_parts: tuple[Settings, dict[str, Part]]
) -> None:
    server = stack_parts[1]["mqtt"]
    publish(stack, contract, 1)
    until(lambda: len(in_kafka(stack, contract.topic)) == 1)
    kill(server)
    until(lambda: bridge.heartbeat.error)
    assert "MQTT broker" in str(bridge.heartbeat.error)
    await_running(restarted(server))
    until(lambda: bridge._client.is_connected())
    time.sleep(0.5)
    publish(stack, contract, 2)
    until(lambda: len(in_kafka(stack, contract.topic)) == 2)
    assert bridge.heartbeat.error is None


def test_a_message_is_acknowledged_when_kafka_has_it_and_not_before(stack: Settings, contract: Contract) -> None:
    bridge, kafka, acknowledged = Bridge([contract], stack), _Unreachable(), []
    bridge._producer = kafka  # type: ignore[assignment]
    bridge._client.ack = lambda mid, qos: acknowledged.append((mid, qos))  # type: ignore[method-assign, assignment, return-value]
    for mid in (1, 2):
        message = mqtt.MQTTMessage(mid, f"{contract.name}/downtown/traffic".encode())
        message.payload, message.qos = encode(reading())[0], 1  # type: ignore[assignment]
        bridge._on_message(bridge._client, None, message)
    assert (acknowledged, bridge._waiting) == ([], 2)
    kafka.deliveries[1](None, None)
    kafka.deliveries[0]("the message was too large", None)
    assert (acknowledged, bridge._waiting) == ([(2, 1)], 0)
    assert "Kafka refused a message" in str(bridge.heartbeat.error)


def test_what_was_not_acknowledged_comes_again(stack: Settings, contract: Contract) -> None:
    """A bridge that ends while Kafka is away leaves its message with the MQTT broker, for the next bridge."""
    if "mosquitto" not in servers.mqtt(stack.model_copy(update={"mqtt_address": None})).argv[0]:
        pytest.skip("mosquitto is not installed, and amqtt drops what was not acknowledged")
    ensure_topics(stack.kafka, [contract])
    deaf = Bridge([contract], stack)
    deaf._producer = _Unreachable()  # type: ignore[assignment]
    with run(deaf):
        publish(stack, contract, 7)
        until(lambda: deaf._waiting == 1)
    assert in_kafka(stack, contract.topic) == []
    with run(Bridge([contract], stack)):
        found = until(lambda: in_kafka(stack, contract.topic))
    assert found[0][1] == encode(reading(value=7))[0]


@contextlib.contextmanager
def run(bridge: Bridge) -> Iterator[Bridge]:
    stop = threading.Event()
    thread = threading.Thread(daemon=True, target=bridge.run, args=(stop,))
    thread.start()
    until(lambda: bridge._client.is_connected())
    time.sleep(0.5)
    yield bridge
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


class _Unreachable:
    """A producer whose Kafka answers only when a test says so."""

    def __init__(self) -> None:
        self.deliveries: list[Any] = []

    def produce(self, *args: object, on_delivery: Any) -> None:
        self.deliveries.append(on_delivery)

    def poll(self, seconds: float) -> None: ...
    def flush(self, seconds: float) -> None: ...


def test_a_payload_without_a_key_has_none() -> None:
    assert key_of(SENSORS, b"not json") is None
    assert key_of(SENSORS, b"[1]") is None
    assert key_of(SENSORS, b'{"sensor_id": 5}') is None
