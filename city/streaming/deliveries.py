"""What the bridge knows of an MQTT message: where it goes, and when it may be acknowledged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
import paho.mqtt.client as mqtt
from confluent_kafka import KafkaError, Message, Producer

from city.contracts.model import Contract
from city.kafka import KafkaServer
from city.sources.model import Source
from city.streaming.topics import MAX_MESSAGE_BYTES

REFUSALS = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD)
"""Errors that Kafka returns for the same message on every attempt."""


@dataclass(frozen=True)
class Route:
    """Where the messages of an MQTT filter go: to a contract as they are, or through sources to their contracts."""

    contracts: tuple[Contract, ...]
    sources: tuple[Source, ...] = ()

    @property
    def name(self) -> str:
        """The names of the sources or of the contract."""
        return ", ".join(part.name for part in self.sources or self.contracts)

    def ignores(self, topic: str) -> bool:
        """Returns whether a source knows the MQTT topic as one without events."""
        return any(source.ignores(topic) for source in self.sources)


class Delivery:
    """A message whose parts are on their way. `done` is called once, when all of them have arrived.

    A delivery that `is_over` without that was given up: the broker sends its message again.
    """

    def __init__(self, message: mqtt.MQTTMessage, parts: int, done: Callable[[], None]) -> None:
        self.message = message
        self.is_over = not parts
        self._left, self._done = parts, done
        if self.is_over:
            done()

    def part_done(self) -> None:
        """Notes that a part is in Kafka or in the quarantine."""
        self._left -= 1
        if not self._left and not self.is_over:
            self.is_over = True
            self._done()


def lasting_producer(kafka: KafkaServer, on_error: Callable[[KafkaError], None]) -> Producer:
    """Creates a producer that holds messages for as long as Kafka is away."""
    return Producer(
        kafka.options(
            {
                "enable.idempotence": True,
                "message.timeout.ms": 0,  # a delivery has no deadline: Kafka may be away for any length of time
                # produce() raises at once for a larger message. The stream checks the limit of the contract.
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "queue.buffering.max.messages": 50_000,
                "queue.buffering.max.kbytes": 262_144,
                "linger.ms": 5,
                "compression.type": "lz4",
                "error_cb": on_error,
            }
        )
    )


def produce(
    producer: Producer,
    event: tuple[str, bytes | None, bytes],
    delivered: Callable[[KafkaError | None, Message], None],
    is_over: Callable[[], bool],
) -> bool:
    """Queues an event: its topic, key and message. While the queue is full, deliveries are polled to make space.

    Returns False where `is_over` becomes true before there is space. Raises KafkaException where Kafka's client refuses
    the event.
    """
    topic, key, message = event
    while True:
        try:
            producer.produce(topic, message, key, on_delivery=delivered)
        except BufferError:
            producer.poll(0.1)
            if is_over():
                return False
        else:
            return True


def routes(contracts: Sequence[Contract], sources: Sequence[Source]) -> dict[str, Route]:
    """Returns the route of each MQTT filter. A filter of a contract is not a source's too."""
    found = {c.mqtt_filter: Route((c,)) for c in contracts if c.mqtt_filter}
    for mqtt_filter in dict.fromkeys(s.mqtt_filter for s in sources if s.mqtt_filter and s.mqtt_filter not in found):
        taken = tuple(source for source in sources if source.mqtt_filter == mqtt_filter)
        found[mqtt_filter] = Route(tuple(dict.fromkeys(source.contract for source in taken)), taken)
    return found


def key_of(contract: Contract, payload: bytes) -> bytes | None:
    """Returns the Kafka key of a payload, or None where the payload has none.

    The stream, not the bridge, reports what is wrong with a payload.
    """
    try:
        event = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    key = event.get(contract.key) if isinstance(event, dict) else None
    return key.encode() if isinstance(key, str) else None


def topic_of(message: mqtt.MQTTMessage) -> str:
    """Returns the MQTT topic of a message; a readable form of one that is not UTF-8."""
    try:
        return str(message.topic)
    except UnicodeDecodeError:
        return repr(message._topic)
