"""Takes messages that come by HTTP: judges them, and sends the valid ones to the topics of their contracts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from city.contracts.model import Contract
from city.contracts.registry import contracts
from city.settings import Settings
from city.sources.model import Source, SourceError
from city.sources.outcomes import Event, outcomes
from city.sources.registry import sources
from city.streaming.decode import decode
from city.streaming.deliveries import key_of
from city.streaming.records import RawBatch
from city.streaming.topics import MAX_MESSAGE_BYTES, ensure_topics

_SECONDS = 15.0
_MOST_REASONS = 100


@dataclass
class Receipt:
    """What became of the messages of a request."""

    accepted: int = 0
    """The number of events that Kafka has."""
    offsets: dict[str, dict[int, tuple[int, int]]] = field(default_factory=dict)
    """The first and the last offset of the events, by topic and partition."""
    rejected: dict[int, list[str]] = field(default_factory=dict)
    """The reasons against messages, by their place in the body."""

    def add(self, message: Message) -> None:
        """Notes an event that Kafka has."""
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        of_topic = self.offsets.setdefault(topic, {})
        first, last = of_topic.get(partition, (offset, offset))
        of_topic[partition] = (min(first, offset), max(last, offset))
        self.accepted += 1


class Intake:
    """Judges and sends messages. Safe for several threads."""

    def __init__(self, config: Settings) -> None:
        self._config = config
        options = {
            "enable.idempotence": True,
            "message.timeout.ms": int(_SECONDS * 1000),
            "message.max.bytes": MAX_MESSAGE_BYTES,
            "linger.ms": 5,
            "compression.type": "lz4",
        }
        self._producer = Producer(config.kafka.options(options))
        self._known: set[str] = set()

    def target(self, name: str) -> Contract | Source:
        """Returns the source of that name, or the contract of that name or topic. Raises SourceError."""
        known: dict[str, Contract | Source] = {source.name: source for source in sources(self._config)}
        for contract in contracts(self._config):
            known[contract.topic] = known[contract.name] = contract
        if name not in known:
            raise SourceError(f"no source and no contract {name!r}; known: {', '.join(sorted(known))}")
        if isinstance(found := known[name], Source) and found.needs_topic:
            raise SourceError(f"source {name!r} reads a part of its MQTT topic {found.mqtt!r}: publish it there")
        return found

    def take(self, target: Contract | Source, messages: Sequence[bytes], now: datetime) -> Receipt:
        """Sends what is valid, and returns when Kafka has it. Raises KafkaException where it does not take it."""
        events, rejected = judge(target, messages, self._config.timezone, now)
        receipt = Receipt(rejected={n: reasons[:_MOST_REASONS] for n, reasons in sorted(rejected.items())})
        self._ensure({event.contract for event in events})
        failures: list[KafkaError] = []
        left = len(events)

        def delivered(error: KafkaError | None, message: Message) -> None:
            nonlocal left
            if error is not None:
                failures.append(error)
            else:
                receipt.add(message)
            left -= 1  # last, because the thread that waits for it may not be the one that polls

        ends = time.monotonic() + _SECONDS
        for event in events:
            self._produce(event, delivered, ends)
        while left and time.monotonic() < ends:
            self._producer.poll(0.05)
        if left or failures:
            raise KafkaException(failures[0] if failures else KafkaError(KafkaError._TIMED_OUT))
        return receipt

    def _produce(self, event: Event, delivered: Callable[[KafkaError | None, Message], None], ends: float) -> None:
        while True:
            try:
                self._producer.produce(event.contract.topic, event.message, event.key, on_delivery=delivered)
                return
            except BufferError:  # the callbacks of what is delivered make space
                if time.monotonic() > ends:
                    raise KafkaException(KafkaError(KafkaError._QUEUE_FULL)) from None
                self._producer.poll(0.05)

    def _ensure(self, used: set[Contract]) -> None:
        if missing := [contract for contract in used if contract.topic not in self._known]:
            ensure_topics(self._config.kafka, missing)
            self._known.update(contract.topic for contract in missing)

    def close(self) -> None:
        """Waits up to two seconds for what is on its way."""
        self._producer.flush(2)


def judge(
    target: Contract | Source, messages: Sequence[bytes], zone: str, now: datetime
) -> tuple[list[Event], dict[int, list[str]]]:
    """Returns the valid events of messages, and the reasons against the others, by their place.

    A source's events are judged by its contract too.
    """
    if isinstance(target, Contract):
        rejected = _reasons(target, messages, now)
        valid = [message for number, message in enumerate(messages) if number not in rejected]
        return [Event(target, key_of(target, message) or b"", message) for message in valid], rejected
    found = outcomes([target], messages, (), zone, now)
    told = {number: list(outcome.reasons) for number, outcome in enumerate(found) if outcome.reasons}
    events = [(number, event) for number, outcome in enumerate(found) for event in outcome.events]
    against = _reasons(target.contract, [event.message for _, event in events], now)
    for place, reasons in against.items():
        told.setdefault(events[place][0], []).extend(reasons)
    return [event for place, (_, event) in enumerate(events) if place not in against], told


def _reasons(contract: Contract, messages: Sequence[bytes], now: datetime) -> dict[int, list[str]]:
    count = len(messages)
    arrived = np.full(count, int(now.timestamp() * 1e6), np.int64)
    raw = RawBatch(list(messages), np.zeros(count, np.int32), np.arange(count), arrived, {0: 0}, {0: count})
    _, rejects = decode(contract, raw, {})
    return dict(rejects.select("offset", "reasons").iter_rows())
