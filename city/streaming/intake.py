"""Takes messages that come by HTTP: judges them, and sends the valid ones to the topics of their contracts."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from confluent_kafka import KafkaError, Message, Producer

from city.contracts.model import Contract
from city.contracts.registry import contracts
from city.settings import Settings
from city.sources.bodies import BodyError
from city.sources.model import Source, SourceError
from city.sources.outcomes import Event, outcomes
from city.sources.registry import sources
from city.streaming.decode import decode
from city.streaming.deliveries import key_of, produce
from city.streaming.records import RawBatch
from city.streaming.topics import MAX_MESSAGE_BYTES, ensure_topics

_SECONDS = 15.0
_SLICE, _MOST_WRONG = 5_000, 10_000
_MOST_REASONS = 100
_KEY_CHARACTERS = 60
"""The most characters of a key that a reason shows."""


class NotConfirmed(Exception):
    """Reports that Kafka has not confirmed all events of a request. The message says how many it has."""


@dataclass
class IngestReceipt:
    """What became of the messages of a request."""

    accepted: int = 0
    """The number of events that Kafka has."""
    offsets: dict[str, dict[int, tuple[int, int]]] = field(default_factory=dict)
    """The first and the last offset of the events, by topic and partition."""
    rejected: dict[int, list[str]] = field(default_factory=dict)
    """The reasons against messages, by their place in the body."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, message: Message) -> None:
        """Notes an event that Kafka has."""
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        with self._lock:  # the thread that polls is not always the one that waits
            by_partition = self.offsets.setdefault(topic, {})
            first, last = by_partition.get(partition, (offset, offset))
            by_partition[partition] = (min(first, offset), max(last, offset))
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
        if isinstance(target := known[name], Source) and target.needs_topic:
            raise SourceError(f"source {name!r} reads a part of its MQTT topic {target.mqtt!r}: publish it there")
        return target

    def take(self, target: Contract | Source, messages: Sequence[bytes], now: datetime) -> IngestReceipt:
        """Sends what is valid, and returns when Kafka has it.

        Raises BodyError where too many messages are wrong, KafkaException where Kafka cannot be reached, and
        NotConfirmed where it has not confirmed all events.
        """
        events, rejected = judge(target, messages, self._config.timezone, now)
        receipt = IngestReceipt(rejected={n: reasons[:_MOST_REASONS] for n, reasons in sorted(rejected.items())})
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
            record = (event.contract.topic, event.key, event.message)
            if not produce(self._producer, record, delivered, lambda: time.monotonic() > ends):
                break
        while left and time.monotonic() < ends:
            self._producer.poll(0.05)
        if left or failures:
            cause = self._config.kafka.explain(failures[0]) if failures else f"no answer within {_SECONDS:g} s"
            raise NotConfirmed(
                f"Kafka at {self._config.kafka} has confirmed {receipt.accepted} of {len(events)} events ({cause}). "
                "Send the body again: events with the same key and time count once, others a second time"
            )
        return receipt

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

    A source's events are judged by its contract too. Raises BodyError where more than 10,000 messages are wrong: to
    name the reasons takes a thousand times as long as to take a valid message.
    """
    events: list[Event] = []
    rejected: dict[int, list[str]] = {}
    for first in range(0, len(messages), _SLICE):
        valid, wrong = _judge_slice(target, messages[first : first + _SLICE], zone, now)
        events += valid
        rejected |= {first + number: reasons for number, reasons in wrong.items()}
        if len(rejected) > _MOST_WRONG:
            number, reasons = next(iter(rejected.items()))
            raise BodyError(
                f"more than {_MOST_WRONG:,} messages are wrong, and none was taken; message {number}: {reasons[0]}"
            )
    return events, rejected


def _judge_slice(
    target: Contract | Source, messages: Sequence[bytes], zone: str, now: datetime
) -> tuple[list[Event], dict[int, list[str]]]:
    if isinstance(target, Contract):
        rejected = _reasons(target, messages, now)
        valid = [message for number, message in enumerate(messages) if number not in rejected]
        return [Event(target, key_of(target, message) or b"", message) for message in valid], rejected
    results = outcomes([target], messages, (), zone, now)
    reasons_by_message = {number: list(result.reasons) for number, result in enumerate(results) if result.reasons}
    events = [(number, event) for number, result in enumerate(results) for event in result.events]
    against = _reasons(target.contract, [event.message for _, event in events], now)
    for place, reasons in against.items():
        number, event = events[place]
        # One message may be many events, such as the vehicles of a feed.
        key = f"{target.contract.key} {event.key.decode(errors='replace')[:_KEY_CHARACTERS]!r}: "
        reasons_by_message.setdefault(number, []).extend(key + reason for reason in reasons)
    return [event for place, (_, event) in enumerate(events) if place not in against], reasons_by_message


def _reasons(contract: Contract, messages: Sequence[bytes], now: datetime) -> dict[int, list[str]]:
    count = len(messages)
    arrived = np.full(count, int(now.timestamp() * 1e6), np.int64)
    raw = RawBatch(list(messages), np.zeros(count, np.int32), np.arange(count), arrived, {0: 0}, {0: count})
    _, rejects = decode(contract, raw, {})
    return dict(rejects.select("offset", "reasons").iter_rows())
