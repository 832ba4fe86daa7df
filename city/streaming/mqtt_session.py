"""Carries MQTT messages to Kafka over one connection to each broker.

The session acknowledges a message to the MQTT broker only when Kafka or the quarantine has it.
"""

import logging
import select
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import paho.mqtt.client as mqtt
from confluent_kafka import KafkaError, KafkaException
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from city.contracts.model import Contract
from city.lake import STRAYS
from city.settings import Settings
from city.stack.worker import Worker, describe
from city.streaming.carried import CarriedMessages
from city.streaming.deliveries import REFUSALS, Delivery, Route, key_of, lasting_producer, produce, topic_of
from city.streaming.strays import Stray, quarantine_strays, stray
from city.streaming.subscriptions import Subscriptions, client_id
from city.streaming.topics import MAX_MESSAGE_BYTES, ensure_topics

log = logging.getLogger(__name__)

_IDLE_SECONDS = 0.2
_GATHER_SECONDS = 0.02
_FEW = 10
"""A number of packets. A broker that sends more at once may wait for acknowledgements (Mosquitto sends twenty by
default)."""
_MOST_PACKETS = 500
_CONNECT_SECONDS = 20.0
_SAVE_SECONDS = 10.0
_STRAY_SECONDS = 0.5
_PROBE_SECONDS = 2.0


class Session:
    """Holds one connection to each broker, in one thread.

    The session sends, acknowledges and reports in the order of that thread. It subscribes with QoS 1 and with an MQTT
    session that outlives the connection, so the MQTT broker sends again each message that was not acknowledged. An
    error of Kafka or MQTT, or a fault in this code, ends the session and is raised. The next session continues from
    there.
    """

    def __init__(
        self, routes: Mapping[str, Route], config: Settings, worker: Worker, count: Callable[[int], None]
    ) -> None:
        self._routes, self._config, self._worker, self._count = routes, config, worker, count
        home = config.home / "bridge"
        self.carried = CarriedMessages(home / "carried.bin")
        self._subscriptions = Subscriptions(routes, home / "filters.json", config.mqtt.subscription)
        self.waiting = 0
        """The number of messages that neither Kafka nor the quarantine has confirmed."""
        self.ended: str | None = None
        self._strays: list[tuple[Delivery, Stray]] = []
        self._gathered: dict[Route, list[tuple[mqtt.MQTTMessage, str, bytes]]] = {}
        """The messages that sources have yet to map, by their route. Together they cost little more than one."""
        self._kafka_error: tuple[float, str] | None = None
        self._explained = ("", "")
        """The last error of Kafka, and its explanation."""
        self._delivered = 0
        self._saved = self._committed = self._probed = time.monotonic()
        self.producer = lasting_producer(config.kafka, self._on_kafka_error)
        self.client = config.mqtt.client(client_id(config), lasting=True, manual_ack=True)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_subscribe = self._subscriptions.on_subscribe
        self.client.on_message = self._on_message

    def run(self) -> None:
        """Runs the session until the worker requests a stop. Raises the error that ends the session."""
        try:
            ensure_topics(self._config.kafka, {c for route in self._routes.values() for c in route.contracts})
        except KafkaException as error:
            cause = self._config.kafka.explain(error.args[0])
            raise ConnectionError(f"Kafka at {self._config.kafka} is unavailable: {cause}") from error
        server = self._config.mqtt
        try:
            server.connect(self.client, lasting=True)
        except OSError as error:
            raise ConnectionError(f"the MQTT broker at {server} is unavailable: {server.explain(error)}") from error
        began = time.monotonic()
        try:
            while not self._worker.stop_requested.is_set():
                code = self.client.loop(_GATHER_SECONDS if self.waiting else _IDLE_SECONDS)
                packets = self._read_packets()
                self.turn()
                if self.ended or code != mqtt.MQTT_ERR_SUCCESS:
                    raise ConnectionError(
                        self.ended or f"the MQTT broker at {self._config.mqtt} is unavailable: {code.name}"
                    )
                if not self.client.is_connected() and time.monotonic() - began > _CONNECT_SECONDS:
                    raise ConnectionError(f"the MQTT broker at {self._config.mqtt} does not answer")
                if self.waiting and packets < _FEW:
                    # A turn costs more than a message. The messages that arrive during this wait share one turn.
                    self._worker.stop_requested.wait(_GATHER_SECONDS)
        finally:
            self._close_connections()

    def _read_packets(self) -> int:
        """Reads all packets that have arrived and returns their number. The client's `loop` reads only one."""
        for number in range(_MOST_PACKETS):
            socket = self.client.socket()
            if socket is None or not select.select([socket], [], [], 0)[0]:
                return number
            self.client.loop_read()
        return _MOST_PACKETS

    def turn(self) -> None:
        """Does the periodic work between two reads of the MQTT connection.

        Maps what was gathered, polls the producer, commits strays, saves the carried messages, probes Kafka and reports
        progress.
        """
        self._map_gathered()
        self.producer.poll(0)
        now = time.monotonic()
        if self._strays and now - self._committed > _STRAY_SECONDS:
            self._commit_strays()
            self._committed = time.monotonic()
        if now - self._saved > _SAVE_SECONDS:
            self._saved = now
            self._save_carried()
        if self._kafka_error and now - self._probed > _PROBE_SECONDS:
            self._probed = now
            # librdkafka reports that a broker is gone, but never that it is back.
            if now - self._kafka_error[0] > _PROBE_SECONDS and self._is_kafka_listening():
                self._kafka_error = None
        self._worker.note(self._subscriptions.refused or (self._kafka_error[1] if self._kafka_error else None))
        if self.client.is_connected():
            self._count(self._delivered)
            self._worker.progress(self._delivered)
            self._delivered = 0

    def _close_connections(self) -> None:
        try:
            self.producer.flush(5)  # the session acknowledges each message that Kafka confirms here
            if self._strays:
                self._commit_strays()
        finally:
            self.producer.purge()  # the remaining messages are not acknowledged: the MQTT broker sends them again
            self.client.disconnect()
            self._save_carried()

    def _save_carried(self) -> None:
        try:
            self.carried.save()
        except OSError as error:  # a full disk must not end the session; a retained message may be carried twice
            log.warning("cannot store the digests of carried messages: %s", error)

    def _on_connect(
        self,
        client: mqtt.Client,
        data: object,
        flags: mqtt.ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if code.is_failure:
            self.ended = f"the MQTT broker at {self._config.mqtt} refuses the bridge: {self._config.mqtt.explain(code)}"
            return
        # The bridge subscribes at every connect: a broker that lost its sessions has lost the subscriptions too.
        self._subscriptions.subscribe(client)

    def _on_disconnect(
        self,
        client: mqtt.Client,
        data: object,
        flags: mqtt.DisconnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self.ended = f"the MQTT broker at {self._config.mqtt} is unavailable: {code}"

    def _on_message(self, client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        try:
            self._handle_message(message)
        except Exception as error:  # one faulty message must not stop the messages after it
            log.exception("cannot process a message of %s", topic_of(message))
            self._reject_message(message, f"the bridge cannot carry it: {describe(error)}")

    def _handle_message(self, message: mqtt.MQTTMessage) -> None:
        topic, payload = topic_of(message), bytes(message.payload)
        route = next((r for f, r in self._routes.items() if mqtt.topic_matches_sub(f, topic)), None)
        if route is None:
            self._reject_message(message, f"no contract and no source has the MQTT topic {topic!r}")
            self._subscriptions.unsubscribe_all(self.client, topic)
        elif not payload or route.ignores(topic) or (message.retain and self.carried.is_repeat(topic, payload)):
            # An empty message deletes a retained message (MQTT 3.1.1, 3.3.1.3). It is not an event.
            self.client.ack(message.mid, message.qos)
        elif len(payload) > MAX_MESSAGE_BYTES:
            self._reject_message(
                message, f"{len(payload):,} bytes for {route.name}, more than Kafka's {MAX_MESSAGE_BYTES:,}"
            )
        elif route.sources:
            self._gathered.setdefault(route, []).append((message, topic, payload))
            self.waiting += 1
        else:
            (contract,) = route.contracts
            self.waiting += 1
            self._send(contract, key_of(contract, payload), payload, self._deliver(message, 1))

    def _map_gathered(self) -> None:
        """Maps the messages that were gathered for sources, and sends what they become."""
        gathered, self._gathered = self._gathered, {}
        for route, messages in gathered.items():
            from city.sources.outcomes import outcomes  # loads Polars, which a bridge without sources does not need

            topics, payloads = [topic for _, topic, _ in messages], [payload for *_, payload in messages]
            results = outcomes(route.sources, payloads, topics, self._config.timezone, datetime.now(UTC))
            for (message, _, _), result in zip(messages, results, strict=True):
                delivery = self._deliver(message, len(result.events) + bool(result.reasons))
                for event in result.events:
                    self._send(event.contract, event.key, event.message, delivery)
                if result.reasons:
                    self._strays.append((delivery, stray(message, *result.reasons)))

    def _deliver(self, message: mqtt.MQTTMessage, parts: int) -> Delivery:
        def acknowledge() -> None:
            self.waiting -= 1
            self.carried.add(topic_of(message), bytes(message.payload), message.retain)
            self.client.ack(message.mid, message.qos)
            self._delivered += 1

        return Delivery(message, parts, acknowledge)

    def _send(self, contract: Contract, key: bytes | None, payload: bytes, delivery: Delivery) -> None:
        """Sends an event to Kafka. The delivery ends with its confirmation, or with that of the quarantine."""

        def refuse(error: KafkaError) -> None:
            reason = f"Kafka refuses it for {contract.name}: {error.str()}"
            self._strays.append((delivery, stray(delivery.message, f"message: {reason}")))

        def delivered(error: KafkaError | None, _: object) -> None:
            if error is None:
                delivery.part_done()
            elif error.code() in REFUSALS:
                refuse(error)
            else:
                self._give_up(delivery, f"Kafka did not take a message of {topic_of(delivery.message)}: {error.str()}")

        if self.ended:  # the session ends anyway: no event waits for space again
            self._give_up(delivery, self.ended)
            return
        began = time.monotonic()

        def is_over() -> (
            bool
        ):  # while Kafka is unavailable, nothing is read from the MQTT broker: not beyond its keepalive
            return self._worker.stop_requested.is_set() or time.monotonic() - began > _CONNECT_SECONDS

        try:
            if not produce(self.producer, (contract.topic, key, payload), delivered, is_over):
                self._give_up(delivery, f"Kafka at {self._config.kafka} takes no more messages")
        except KafkaException as error:
            if error.args[0].code() in REFUSALS:
                refuse(error.args[0])
            else:
                topic = topic_of(delivery.message)
                self._give_up(delivery, f"Kafka does not take a message of {topic}: {error.args[0].str()}")

    def _give_up(self, delivery: Delivery, reason: str) -> None:
        """Ends the session. The message stays without an acknowledgement: the broker sends it to the next session."""
        self.ended = reason
        if not delivery.is_over:
            delivery.is_over = True
            self.waiting -= 1

    def _reject_message(self, message: mqtt.MQTTMessage, reason: str) -> None:
        self.waiting += 1
        self._strays.append((self._deliver(message, 1), stray(message, f"message: {reason}")))

    def _commit_strays(self) -> None:
        """Commits the strays to the quarantine, then ends their deliveries.

        Raises the errors of the disk and the lake. The messages are then not acknowledged, and come again.
        """
        strays, self._strays = self._strays, []
        quarantine_strays(self._config.lake, [stray for _, stray in strays])
        log.warning("%d messages to quarantine/%s; the last: %s", len(strays), STRAYS, strays[-1][1].reasons[0])
        for delivery, _ in strays:
            delivery.part_done()

    def _is_kafka_listening(self) -> bool:
        return self._config.kafka.listens()

    def _on_kafka_error(self, error: KafkaError) -> None:
        # To explain an error may take connections to the brokers. librdkafka repeats its errors at each attempt.
        if self._kafka_error is None or error.str() != self._explained[0]:
            self._explained = (error.str(), f"Kafka: {self._config.kafka.explain(error)}")
        self._kafka_error = (time.monotonic(), self._explained[1])
