"""MQTT to Kafka: a message is acknowledged to the MQTT broker only when Kafka has it."""

import logging
import threading
from collections.abc import Sequence
from typing import Any

import orjson
import paho.mqtt.client as mqtt
from confluent_kafka import KafkaException, Producer

from city.contracts.model import Contract
from city.net import split_address
from city.settings import Settings
from city.streaming.heartbeat import Heartbeat
from city.streaming.topics import ensure_topics

log = logging.getLogger(__name__)

NAME = "mqtt-bridge"


class Bridge:
    """Subscribes with QoS 1 and a session that outlives the connection, so what was not acknowledged comes again."""

    def __init__(self, contracts: Sequence[Contract], config: Settings) -> None:
        self.config = config
        self._by_filter = {c.mqtt_filter: c for c in contracts if c.mqtt_filter}
        self._producer = Producer(
            {
                "bootstrap.servers": config.kafka,
                "enable.idempotence": True,
                "message.timeout.ms": 0,  # Kafka may be away for as long as it takes
                "queue.buffering.max.messages": 50_000,
                "linger.ms": 5,
                "compression.type": "lz4",
                "error_cb": self._on_kafka_error,
                "log_level": 0,
            }
        )
        self._client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id="city-bridge", clean_session=False, manual_ack=True
        )
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        if config.mqtt_username:
            secret = config.mqtt_password.get_secret_value() if config.mqtt_password else None
            self._client.username_pw_set(config.mqtt_username, secret)
        self._client.reconnect_delay_set(1, 10)
        self.heartbeat = Heartbeat(config, NAME)
        self._waiting = 0
        self._lock = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        """Blocks until `stop`. What Kafka has not confirmed by then is not acknowledged, and so comes again."""
        self._until(stop, lambda: ensure_topics(self.config.kafka, self._by_filter.values()), KafkaException, "Kafka")
        host, port = split_address(self.config.mqtt)
        self._until(stop, lambda: self._client.connect(host, port, keepalive=30), OSError, "the MQTT broker")
        self._client.loop_start()
        while not stop.wait(0.05):
            self._producer.poll(0)
            self.heartbeat.beat(lag=self._waiting)
        self._producer.flush(5)
        self._client.disconnect()
        self._client.loop_stop()

    def _until(self, stop: threading.Event, act: Any, away: type[Exception], what: str) -> None:
        while not stop.is_set():
            try:
                act()
                return
            except away as error:
                self.heartbeat.error = f"{what} is away: {error}"
                self.heartbeat.beat()
                stop.wait(1)

    def _on_connect(self, client: mqtt.Client, data: Any, flags: Any, code: Any, properties: Any) -> None:
        # Here, and not once at the start: a broker that lost its sessions has lost the subscriptions too.
        client.subscribe([(topic, 1) for topic in self._by_filter])
        self.heartbeat.error = None

    def _on_disconnect(self, client: mqtt.Client, data: Any, flags: Any, code: Any, properties: Any) -> None:
        self.heartbeat.error = f"the MQTT broker at {self.config.mqtt} is away: {code}"

    def _on_message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        contract = next(c for f, c in self._by_filter.items() if mqtt.topic_matches_sub(f, message.topic))

        def delivered(error: Any, _: Any) -> None:
            with self._lock:
                self._waiting -= 1
            if error is None:
                client.ack(message.mid, message.qos)
                self.heartbeat.count(1)
            else:  # left without an acknowledgement, so the broker gives it again
                self.heartbeat.error = f"Kafka refused a message of {message.topic}: {error}"

        payload = bytes(message.payload)
        with self._lock:
            self._waiting += 1
        while True:
            try:
                self._producer.produce(contract.topic, payload, key_of(contract, payload), on_delivery=delivered)
                return
            except BufferError:  # Kafka is away: hold the MQTT broker back
                self._producer.poll(0.2)

    def _on_kafka_error(self, error: Any) -> None:
        self.heartbeat.error = f"Kafka: {error.str()}"


def key_of(contract: Contract, payload: bytes) -> bytes | None:
    """The message's key, where the payload has one; what is wrong with the payload is the stream's to say."""
    try:
        event = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    key = event.get(contract.key) if isinstance(event, dict) else None
    return key.encode() if isinstance(key, str) else None
