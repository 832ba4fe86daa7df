"""The bridge between a real MQTT broker and a real Kafka."""

import contextlib
import json
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import polars as pl
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from city.contracts.model import Contract
from city.net import accepts, split_address
from city.settings import Settings
from city.stack import servers
from city.stack.embedded import await_running, free_ports
from city.stack.part import Part, Spec
from city.stack.state import read_json
from city.stack.worker import Worker
from city.streaming.bridge import Bridge
from city.streaming.carried import CarriedMessages
from city.streaming.deliveries import Route, key_of
from city.streaming.mqtt_session import Session
from city.streaming.strays import strays_path
from city.streaming.subscriptions import Subscriptions, filters_of
from city.streaming.topics import MAX_MESSAGE_BYTES, ensure_topics
from city_assets.environment.contract import SENSORS
from city_assets.environment.sources import CITY_ENVIRONMENT, ZIGBEE2MQTT
from tests.events import encode, iso, reading
from tests.live import kill, restarted, until


@pytest.fixture
def contract() -> Contract:
    name = f"m{uuid.uuid4().hex[:8]}"
    return replace(SENSORS, name=name, topic=name, mqtt=f"{name}/<location>/<type>", windows=(), partitions=1)


@pytest.fixture
def bridge(stack: Settings, contract: Contract) -> Iterator[Bridge]:
    with run(Bridge([contract], stack)) as running:
        yield running


def publisher(stack: Settings) -> mqtt.Client:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.connect(*split_address(str(stack.mqtt)))
    client.loop_start()
    return client


@contextlib.contextmanager
def receiver(
    config: Settings, on_message: Callable[[mqtt.Client, object, mqtt.MQTTMessage], None]
) -> Iterator[mqtt.Client]:
    """A client whose session outlives its connection, and which does not acknowledge by itself."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="receiver", clean_session=False, manual_ack=True)
    subscribed = threading.Event()
    client.on_message = on_message
    client.on_connect = lambda client, *_: client.subscribe("kept/+", 1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect(*split_address(str(config.mqtt)))
    client.loop_start()
    assert subscribed.wait(10)
    yield client
    client.disconnect()
    client.loop_stop()


@contextlib.contextmanager
def sender(config: Settings) -> Iterator[Callable[[int], None]]:
    """A function that publishes a number, and returns when the broker has it."""
    client = publisher(config)
    yield lambda number: client.publish("kept/a", str(number), qos=1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def publish(stack: Settings, contract: Contract, *values: float) -> None:
    client = publisher(stack)
    topic = f"{contract.name}/downtown/traffic"
    for value in values:
        message = encode(reading(value=value))[0]
        client.publish(topic, message, qos=1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def in_kafka(stack: Settings, topic: str) -> list[tuple[bytes | None, bytes]]:
    consumer = Consumer({"bootstrap.servers": str(stack.kafka), "group.id": uuid.uuid4().hex})
    partition = TopicPartition(topic, 0, 0)
    _, end = consumer.get_watermark_offsets(partition)
    consumer.assign([partition])
    messages: list[tuple[bytes | None, bytes]] = []
    while len(messages) < end:
        messages += [(message.key(), message.value()) for message in consumer.consume(100, 0.5)]
    consumer.close()
    return messages


def test_messages_reach_kafka_unchanged_with_their_key(stack: Settings, contract: Contract, bridge: Bridge) -> None:
    publish(stack, contract, 1, 2, 3)
    messages = until(lambda: len(in_kafka(stack, contract.topic)) == 3 and in_kafka(stack, contract.topic))
    assert messages == [(b"downtown_traffic_3", encode(reading(value=value))[0]) for value in (1, 2, 3)]
    beat = until(lambda: (b := read_json(stack, "mqtt-bridge.json")) and b["events"] == 3 and b)
    assert (beat["lag"], beat["last_error"]) == (0, None)


def test_it_subscribes_again_after_the_broker_wasrestarted(
    stack: Settings, contract: Contract, bridge: Bridge, stack_parts: tuple[Settings, dict[str, Part]]
) -> None:
    server = stack_parts[1]["mqtt"]
    publish(stack, contract, 1)
    until(lambda: len(in_kafka(stack, contract.topic)) == 1)
    kill(server)
    until(lambda: "MQTT broker" in (read_json(stack, "mqtt-bridge.json") or {})["last_error"])
    await_running(restarted(server))
    until(lambda: bridge.session and bridge.session.client.is_connected())
    time.sleep(0.5)
    publish(stack, contract, 2)
    until(lambda: len(in_kafka(stack, contract.topic)) == 2)
    assert bridge.worker.complaint() is None


def test_a_message_is_acknowledged_when_kafka_has_it_and_not_before(stack: Settings, contract: Contract) -> None:
    session, kafka, acknowledged = deaf(stack, contract)
    for mid in (1, 2):
        session._on_message(session.client, None, incoming(contract, encode(reading())[0], mid))
    assert (acknowledged, session.waiting) == ([], 2)
    kafka.deliveries[1](None, None)
    assert (acknowledged, session.waiting, session.ended) == ([2], 1, None)
    kafka.deliveries[0](KafkaError(KafkaError._TIMED_OUT), None)
    assert (acknowledged, session.waiting) == ([2], 0)
    assert "Kafka did not take a message" in str(session.ended)  # the next session is given it again


def test_what_kafka_will_never_take_is_quarantined_and_acknowledged(stack: Settings, contract: Contract) -> None:
    session, kafka, acknowledged = deaf(stack, contract)
    for mid in (1, 2, 3):
        session._on_message(session.client, None, incoming(contract, b"payload %d" % mid, mid))
    kafka.deliveries[0](KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), None)
    kafka.refuses = KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    session._on_message(session.client, None, incoming(contract, b"payload 4", 4))
    kafka.refuses = ValueError("a fault of ours")
    session._on_message(session.client, None, incoming(contract, b"payload 5", 5))
    assert acknowledged == []
    session._committed = 0
    session.turn()
    assert (acknowledged, session.ended) == ([1, 4, 5], None)
    strays = pl.read_delta(str(strays_path(stack.lake)))
    assert strays["topic"].unique().to_list() == [f"{contract.name}/downtown/traffic"]
    assert strays["raw"].to_list() == [b"payload 1", b"payload 4", b"payload 5"]
    reasons = strays["reasons"].explode().to_list()
    assert contract.name in reasons[0]
    assert reasons[2] == "message: the bridge cannot carry it: ValueError: a fault of ours"


def test_what_was_not_acknowledged_comes_again(stack: Settings, contract: Contract) -> None:
    """A bridge that ends while Kafka is unavailable leaves its message with the MQTT broker, for the next bridge."""
    ensure_topics(stack.kafka, [contract])
    bridge = Bridge([contract], stack)
    with run(bridge):
        assert bridge.session is not None
        bridge.session.producer = _Unreachable()
        publish(stack, contract, 7)
        until(lambda: bridge.session.waiting == 1)  # type: ignore[union-attr]
    assert in_kafka(stack, contract.topic) == []
    with run(Bridge([contract], stack)):
        messages = until(lambda: in_kafka(stack, contract.topic))
    assert messages[0][1] == encode(reading(value=7))[0]


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_a_killed_client_receives_what_it_had_not_acknowledged_and_what_came_meanwhile(
    stack: Settings, kind: str, tmp_path: Path
) -> None:
    received: list[int] = []

    def take(client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        received.append(int(message.payload))

    def take_and_acknowledge(client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        received.append(int(message.payload))
        client.ack(message.mid, message.qos)

    with broker(stack, kind, tmp_path) as config, sender(config) as send_number:
        with receiver(config, take) as killed:
            for number in range(5):
                send_number(number)
            until(lambda: len(received) == 5)
            time.sleep(5.5)  # longer than amqtt itself waits for an acknowledgement
            killed.loop_stop()
            killed.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
            for number in range(5, 1500):  # more than are sent before the first acknowledgement
                send_number(number)
        for expected in (1500, 0):  # nothing comes again once it is acknowledged
            received.clear()
            with receiver(config, take_and_acknowledge):
                until(lambda: len(received) >= expected)  # noqa: B023
                time.sleep(0.5)
                assert received == list(range(expected))


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_a_second_connection_takes_a_session_over(stack: Settings, kind: str, tmp_path: Path) -> None:
    received: list[tuple[str, int]] = []

    def take_as(name: str) -> Callable[[mqtt.Client, object, mqtt.MQTTMessage], None]:
        return lambda client, data, message: received.append((name, int(message.payload)))

    with (
        broker(stack, kind, tmp_path) as config,
        sender(config) as send_number,
        receiver(config, take_as("first")) as first,
    ):
        send_number(1)
        until(lambda: received == [("first", 1)])
        first.reconnect_delay_set(600, 600)
        with receiver(config, take_as("second")):
            for number in range(2, 30):
                send_number(number)
                time.sleep(0.05)
            until(lambda: received[1:] == [("second", number) for number in range(1, 30)])


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_a_message_too_large_is_one_for_the_stream_and_all_after_it_arrive(
    stack: Settings, contract: Contract, kind: str, tmp_path: Path
) -> None:
    """1.1 MB is more than librdkafka takes by default, and than the contract allows; 21 MB is more than Kafka takes."""
    with broker(stack, kind, tmp_path) as config:
        large, huge = b"\xff" * 1_100_000, b"x" * (MAX_MESSAGE_BYTES + 1)
        with run(Bridge([contract], config)) as bridge:
            client = publisher(config)
            topic = f"{contract.name}/downtown/traffic"
            for payload in (large, huge, encode(reading(value=1))[0], b"no JSON"):
                client.publish(topic, payload, qos=1).wait_for_publish(30)
            client.disconnect()
            client.loop_stop()
            messages = until(lambda: len(in_kafka(stack, contract.topic)) == 3 and in_kafka(stack, contract.topic))
            assert [value for _, value in messages] == [large, encode(reading(value=1))[0], b"no JSON"]
            (stray,) = until(lambda: pl.read_delta(str(strays_path(config.lake))).rows(named=True))
            assert stray["topic"] == topic
            assert "20,971,521 bytes" in stray["reasons"][0]
            assert contract.name in stray["reasons"][0]
            assert bridge.worker.restarts == 0
        with run(Bridge([contract], config)):  # nothing of it comes again
            publish(config, contract, 2)
            until(lambda: len(in_kafka(stack, contract.topic)) == 4)
    assert pl.read_delta(str(strays_path(config.lake))).height == 1


def test_a_topic_that_no_contract_has_any_more_is_quarantined_by_name_and_unsubscribed(
    stack: Settings, contract: Contract, tmp_path: Path
) -> None:
    """The MQTT session of an earlier bridge holds its subscriptions: of one we know what it was, of the other not."""
    with broker(stack, "mosquitto", tmp_path) as config:
        removed = replace(
            contract, name=contract.name + "x", topic=contract.topic + "x", mqtt=f"{contract.name}-old/<a>"
        )
        with run(Bridge([contract, removed], config)):
            pass
        earlier = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="city-bridge", clean_session=False)
        earlier.on_connect = lambda client, *_: client.subscribe(f"{contract.name}-unknown/+/#", 1)
        subscribed = threading.Event()
        earlier.on_subscribe = lambda *_: subscribed.set()
        earlier.connect(*split_address(str(config.mqtt)))
        earlier.loop_start()
        assert subscribed.wait(10)
        earlier.disconnect()
        earlier.loop_stop()
        client = publisher(config)
        for topic in (f"{contract.name}-old/a", f"{contract.name}-unknown/a/b"):
            client.publish(topic, b"while no bridge runs", qos=1).wait_for_publish(10)
        with run(Bridge([contract], config)) as bridge:
            publish(config, contract, 1)
            until(lambda: len(in_kafka(stack, contract.topic)) == 1)
            until(lambda: pl.read_delta(str(strays_path(config.lake))).height == 2)
            for topic in (f"{contract.name}-old/a", f"{contract.name}-unknown/a/b"):
                client.publish(topic, b"after it was unsubscribed", qos=1).wait_for_publish(10)
            publish(config, contract, 2)
            until(lambda: len(in_kafka(stack, contract.topic)) == 2)
            assert bridge.worker.restarts == 0
        client.disconnect()
        client.loop_stop()
        strays = pl.read_delta(str(strays_path(config.lake)))
    assert sorted(strays["topic"]) == [f"{contract.name}-old/a", f"{contract.name}-unknown/a/b"]
    assert (
        f"no contract and no source has the MQTT topic '{contract.name}-old/a'" in strays.sort("topic")["reasons"][0][0]
    )


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_a_retained_reading_counts_once_however_often_the_bridge_is_restarted(
    stack: Settings, contract: Contract, kind: str, tmp_path: Path
) -> None:
    topic = f"{contract.name}/downtown/traffic"
    with broker(stack, kind, tmp_path) as config:
        client = publisher(config)
        client.publish(f"{topic}_early", encode(reading(value=1))[0], qos=1, retain=True).wait_for_publish(10)
        with run(Bridge([contract], config)):
            client.publish(topic, encode(reading(value=2))[0], qos=1, retain=True).wait_for_publish(10)
            publish(config, contract, 3)
            until(lambda: len(in_kafka(stack, contract.topic)) == 3)
        for _ in range(3):
            with run(Bridge([contract], config)):
                pass
        with run(Bridge([contract], config)):
            client.publish(topic, b"", qos=1, retain=True).wait_for_publish(10)
            publish(config, contract, 4)
            until(lambda: len(in_kafka(stack, contract.topic)) == 4)
        client.disconnect()
        client.loop_stop()
    values = [value for _, value in in_kafka(stack, contract.topic)]
    assert sorted(values) == [encode(reading(value=n))[0] for n in (1, 2, 3, 4)]


def test_the_broker_may_be_restarted_too_with_what_nobody_has_acknowledged(
    stack: Settings, contract: Contract, tmp_path: Path
) -> None:
    """Mosquitto keeps session and messages: the large one, and the reading behind it, are there once all are back."""
    ensure_topics(stack.kafka, [contract])
    with broker(stack, "mosquitto", tmp_path, restart=True) as config:
        bridge = Bridge([contract], config)
        with run(bridge):
            assert bridge.session is not None
            bridge.session.producer = _Unreachable()
            client = publisher(config)
            client.publish(f"{contract.name}/a/b", b"y" * 1_100_000, qos=1).wait_for_publish(10)
            publish(config, contract, 5)
            client.disconnect()
            client.loop_stop()
            until(lambda: bridge.session.waiting == 2)  # type: ignore[union-attr]
    with broker(stack, "mosquitto", tmp_path, port=config.mqtt_port) as config, run(Bridge([contract], config)):
        until(lambda: len(in_kafka(stack, contract.topic)) == 2)
    assert next(len(value) for _, value in in_kafka(stack, contract.topic)) == 1_100_000


def test_a_loop_that_raises_comes_back_with_its_error_reported(
    stack: Settings, contract: Contract, bridge: Bridge
) -> None:
    publish(stack, contract, 1)
    until(lambda: len(in_kafka(stack, contract.topic)) == 1)

    def broken(seconds: float) -> None:
        raise SystemExit("what nobody thought of")

    assert bridge.session is not None
    bridge.session.producer.flush(5)
    broken_session = bridge.session
    broken_session.turn = lambda: broken(0)  # type: ignore[method-assign]
    beat = until(lambda: (b := read_json(stack, "mqtt-bridge.json")) and b["last_error"] and b)
    assert "SystemExit: what nobody thought of" in beat["last_error"]
    (worker,) = [w for w in beat["workers"] if w["name"] == "mqtt-bridge"]
    assert worker["last_error"] == "SystemExit: what nobody thought of"
    until(lambda: bridge.session is not broken_session and bridge.session.client.is_connected())  # type: ignore[union-attr]
    publish(stack, contract, 2)
    until(lambda: len(in_kafka(stack, contract.topic)) == 2)
    assert bridge.worker.restarts == 1


@contextlib.contextmanager
def run(bridge: Bridge) -> Iterator[Bridge]:
    stop = threading.Event()
    thread = threading.Thread(daemon=True, target=bridge.run, args=(stop,))
    thread.start()
    until(lambda: bridge.session and bridge.session.client.is_connected())
    time.sleep(0.5)
    yield bridge
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


def needs_mosquitto(config: Settings) -> None:
    if "mosquitto" not in servers.mqtt(config.model_copy(update={"mqtt_address": None})).argv[0]:
        pytest.skip("mosquitto is not installed, and a killed amqtt has nothing stored")


@contextlib.contextmanager
def broker(
    stack: Settings, kind: str, folder: Path, restart: bool = False, port: int | None = None
) -> Iterator[Settings]:
    """An MQTT broker of its own kind and state, with the shared Kafka."""
    port = port or free_ports(1)[0]
    config = stack.model_copy(update={"mqtt_address": None, "mqtt_port": port})
    if kind == "mosquitto":
        needs_mosquitto(config)
        spec = servers.mqtt(config)
    else:
        argv = [sys.executable, "-m", "city.stack.mqtt_broker", "127.0.0.1", str(port)]
        spec = Spec("amqtt", str(config.mqtt), argv, ready=lambda: accepts("127.0.0.1", port))
    server = Part(spec, folder)
    server.start()
    try:
        await_running(server)
        yield config
    finally:
        server.signal()
        server.await_stop()


def incoming(contract: Contract, payload: bytes | None, mid: int) -> mqtt.MQTTMessage:
    message = mqtt.MQTTMessage(mid, f"{contract.name}/downtown/traffic".encode())
    message.payload, message.qos = payload, 1  # type: ignore[assignment]
    return message


def deaf(stack: Settings, contract: Contract) -> tuple[Session, "_Unreachable", list[int]]:
    """A session whose Kafka answers when the test says so, and what it has acknowledged."""
    acknowledged: list[int] = []
    worker = Worker("t", lambda worker: None)
    session, kafka = (
        Session({str(contract.mqtt_filter): Route((contract,))}, stack, worker, lambda count: None),
        _Unreachable(),
    )
    session.producer = kafka
    session.client.ack = lambda mid, qos: acknowledged.append(mid)  # type: ignore[method-assign, assignment, return-value]
    return session, kafka, acknowledged


class _Unreachable:
    """A producer whose Kafka answers only when a test says so."""

    def __init__(self) -> None:
        self.deliveries: list[Any] = []
        self.refuses: Exception | None = None

    def produce(self, *args: object, on_delivery: Any) -> None:
        if self.refuses:
            raise self.refuses
        self.deliveries.append(on_delivery)

    def poll(self, seconds: float) -> None: ...
    def flush(self, seconds: float) -> None: ...
    def purge(self) -> None: ...


def test_messages_that_were_carried_are_remembered_across_restarts(tmp_path: Path) -> None:
    carried = CarriedMessages(tmp_path / "carried.bin")
    carried.add("t", b"live", retained=False)
    carried.add("t", b"retained", retained=True)
    assert carried.is_repeat("t", b"live")
    assert carried.is_repeat("t", b"retained")
    assert not carried.is_repeat("t", b"other")
    assert not carried.is_repeat("u", b"live")
    carried.add("t", b"later", retained=False)
    carried.save()
    again = CarriedMessages(tmp_path / "carried.bin")
    assert all(again.is_repeat("t", payload) for payload in (b"live", b"retained", b"later"))
    for number in range(150_000):  # what came again is remembered for good, all else for a while
        again.add("t", b"%d" % number, retained=False)
    assert again.is_repeat("t", b"live")
    assert again.is_repeat("t", b"149999")
    assert not again.is_repeat("t", b"1")


def test_every_filter_that_can_have_brought_a_topic_is_known() -> None:
    filters = filters_of(["a", "b"])
    assert len(filters) == len(set(filters))
    assert all(mqtt.topic_matches_sub(one, "a/b") for one in filters)
    assert {"a/b", "a/+", "+/b", "+/+", "#", "a/#", "+/#", "a/b/#", "+/+/#"} <= set(filters)


def test_a_payload_without_a_key_has_none() -> None:
    assert key_of(SENSORS, b"not json") is None
    assert key_of(SENSORS, b"[1]") is None
    assert key_of(SENSORS, b'{"sensor_id": 5}') is None


def test_a_source_turns_a_message_into_events_and_quarantines_what_it_cannot(
    stack: Settings, contract: Contract
) -> None:
    """From MQTT to Kafka: three events of one message, two of another, and one that is wrong in full."""
    own = replace(contract, mqtt=None)
    source = replace(CITY_ENVIRONMENT, contract=own, mqtt=f"{own.name}-raw/<device>")
    good = json.loads(source.sample) | {"timestamp": iso(datetime.now(UTC))}
    with run(Bridge([], stack, [source])):
        client = publisher(stack)
        for message in (good, good | {"temperature": "warm"}, good | {"type": "smell"}):
            client.publish(f"{own.name}-raw/env_2", json.dumps(message), qos=1).wait_for_publish(10)
        messages = until(lambda: len(in_kafka(stack, own.topic)) == 5 and in_kafka(stack, own.topic))
        whole = [b"env_2_temperature", b"env_2_humidity", b"env_2_air_quality"]
        assert [key for key, _ in messages] == [*whole, *whole[1:]], "a wrong measure is left out alone"
        beat = until(lambda: (b := read_json(stack, "mqtt-bridge.json")) and b["events"] == 3 and b["lag"] == 0 and b)
        assert beat["last_error"] is None
        client.disconnect()
        client.loop_stop()
    strays = pl.read_delta(str(strays_path(stack.lake))).filter(pl.col("topic") == f"{own.name}-raw/env_2")
    assert sorted(strays["reasons"].explode()) == [
        "message: of no kind that a source takes (city_environment)",
        'temperature: got "warm" (text); expected a JSON number',
    ]


def test_a_device_with_a_slash_is_read_and_what_is_no_reading_is_not_quarantined(
    stack: Settings, contract: Contract
) -> None:
    own = replace(contract, mqtt=None)
    base = f"{own.name}-z2m"
    source = replace(
        ZIGBEE2MQTT, contract=own, mqtt=f"{base}/<device#>", ignored_topics=rf"{base}(/bridge/.*|/.+/availability)"
    )
    reading = json.dumps({"temperature": 21.5, "last_seen": iso(datetime.now(UTC))})
    with run(Bridge([], stack, [source])):
        client = publisher(stack)
        for rest, message in (
            ("bridge/state", "online"),
            ("kitchen/sensor 1/availability", '{"state": "online"}'),
            ("kitchen/sensor 1", reading),
            ("sensor 2", "rubbish"),
        ):
            client.publish(f"{base}/{rest}", message, qos=1).wait_for_publish(10)
        messages = until(lambda: len(in_kafka(stack, own.topic)) == 1 and in_kafka(stack, own.topic))
        assert [key for key, _ in messages] == [b"kitchen-sensor-1_temperature"]
        until(lambda: strays_path(stack.lake).exists())
        client.disconnect()
        client.loop_stop()
    strays = pl.read_delta(str(strays_path(stack.lake))).filter(pl.col("topic").str.starts_with(base))
    assert strays["topic"].to_list() == [f"{base}/sensor 2"]


def test_a_subscription_that_an_acl_refuses_is_named(tmp_path: Path) -> None:
    subscriptions = Subscriptions(["city/a", "city/b"], tmp_path / "filters.json")
    granted, refused = ReasonCode(PacketTypes.SUBACK, identifier=1), ReasonCode(PacketTypes.SUBACK, identifier=135)
    subscriptions.on_subscribe(mqtt.Client(mqtt.CallbackAPIVersion.VERSION2), None, 1, [granted, refused], None)
    assert subscriptions.refused == (
        "the MQTT broker refuses a subscription to city/b (Not authorized): let its ACL permit it to the user of "
        "CITY_MQTT_USERNAME"
    )
    subscriptions.on_subscribe(mqtt.Client(mqtt.CallbackAPIVersion.VERSION2), None, 1, [granted, granted], None)
    assert subscriptions.refused is None
