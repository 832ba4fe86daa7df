"""Carries messages that sources map, and that come from Kafka topics or by URL: to contracts, or to the quarantine."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from city.settings import Settings
from city.sources.model import Source
from city.sources.reasons import without_items
from city.stack.worker import Worker
from city.streaming.deliveries import REFUSALS, lasting_producer, produce
from city.streaming.heartbeat import Heartbeat
from city.streaming.strays import Stray, quarantine_strays
from city.streaming.topics import ensure_topics

if TYPE_CHECKING:
    from city.sources.outcomes import Event  # loads Polars

log = logging.getLogger(__name__)

_BATCH, _BATCH_SECONDS = 2_000, 0.5
_DELIVERY_SECONDS = 60.0
_LOOK_SECONDS = 10.0
_PART_BYTES = 2_000_000
_ABSENT = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})


@dataclass(frozen=True)
class CarryResult:
    """What messages became: the events, as the messages of their topics, and the reasons against the rest."""

    events: set[bytes]
    reasons: list[list[str]]


class Carrier:
    """Sends what messages become. `carry` returns once Kafka and the quarantine have all of it.

    A carrier may be opened again after a failure. What it has quarantined of messages that failed later is not
    quarantined a second time.
    """

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._producer: Producer | None = None
        self._quarantined: set[tuple[str, bytes]] = set()
        """The origin and the payload of messages in the quarantine whose events Kafka has not confirmed yet."""

    def open(self, sources: Iterable[Source]) -> None:
        """Creates the topics of the sources' contracts, so that Kafka does not create them in its own way.

        Raises KafkaException where Kafka is unavailable, and MissingTopics.
        """
        self._producer = lasting_producer(self._config.kafka, lambda error: None)
        ensure_topics(self._config.kafka, {source.contract for source in sources})

    def carry(
        self,
        sources: Sequence[Source],
        payloads: Sequence[bytes],
        origin: str,
        heartbeat: Heartbeat,
        before: "CarryResult | None" = None,
    ) -> "CarryResult":
        """Carries messages of one origin: a topic or a feed, under which rejected messages are quarantined.

        What was carried `before` is left out: events, and rejected messages with the same reasons. Messages are
        quarantined before events are sent, so that a full disk does not send the events again at each attempt. Raises
        ConnectionError where Kafka does not take the events.
        """
        from city.sources.outcomes import outcomes  # loads Polars, which a bridge without messages does not need

        results = outcomes(sources, payloads, (), self._config.timezone, datetime.now(UTC))
        reasons = [list(result.reasons) for result in results]
        events = [(n, event) for n, result in enumerate(results) for event in result.events]
        sent, earlier_reasons = (before.events, before.reasons) if before else (set[bytes](), list[list[str]]())
        is_new = [bool(each) and without_items(each) not in earlier_reasons for each in reasons]
        self._quarantine(origin, payloads, [each if new else [] for each, new in zip(reasons, is_new, strict=True)])
        refusals = self._send([(n, event) for n, event in events if event.message not in sent], len(payloads), origin)
        self._quarantine(origin, payloads, refusals)
        self._quarantined.clear()
        heartbeat.count(len(payloads))
        together = [each + refusal for each, refusal in zip(reasons, refusals, strict=True)]
        return CarryResult({event.message for _, event in events}, [without_items(each) for each in together if each])

    def _quarantine(self, origin: str, payloads: Sequence[bytes], reasons: Sequence[list[str]]) -> None:
        """Quarantines the messages that have reasons, but for those that are there since an attempt before."""
        strays = [
            Stray(origin, payload, tuple(each), time.time())
            for payload, each in zip(payloads, reasons, strict=True)
            if each and (origin, payload) not in self._quarantined
        ]
        if strays:
            quarantine_strays(self._config.lake, strays)
            self._quarantined.update((origin, stray.payload) for stray in strays)
            log.warning("%d messages of %s to the quarantine; the last: %s", len(strays), origin, strays[-1].reasons[0])

    def _send(self, events: "Sequence[tuple[int, Event]]", messages: int, origin: str) -> list[list[str]]:
        """Sends events, each with the index of its message, and waits. Returns why Kafka refuses some, by message."""
        assert self._producer is not None
        reasons: list[list[str]] = [[] for _ in range(messages)]
        failures: list[KafkaError] = []
        left = len(events)

        def deliver(number: int, error: KafkaError | None, _: object) -> None:
            nonlocal left
            left -= 1
            if error is not None and error.code() in REFUSALS:
                reasons[number].append(f"message: Kafka refuses it: {error.str()}")
            elif error is not None:
                failures.append(error)

        ends = time.monotonic() + _DELIVERY_SECONDS
        for number, event in events:
            try:
                record = (event.contract.topic, event.key, event.message)
                if not produce(self._producer, record, partial(deliver, number), lambda: time.monotonic() > ends):
                    break
            except KafkaException as error:
                if error.args[0].code() not in REFUSALS:
                    raise
                left -= 1
                reasons[number].append(f"message: Kafka refuses it: {error.args[0].str()}")
        while left and not failures and time.monotonic() < ends:
            self._producer.poll(0.1)
        if left or failures:
            cause = self._config.kafka.explain(failures[0]) if failures else "no answer"
            self.close()
            raise ConnectionError(f"Kafka at {self._config.kafka} does not take what {origin} becomes: {cause}")
        return reasons

    def close(self) -> None:
        """Drops what is still on its way. Whoever sent it sends it again."""
        if self._producer is not None:
            self._producer.purge()


class SourceTopics:
    """Carries the messages of the Kafka topics that sources name.

    The group's offsets are committed after the events are in Kafka. A crash in between repeats events, which have the
    same keys and times, so that silver has each once.
    """

    def __init__(self, sources: Sequence[Source], config: Settings, heartbeat: Heartbeat) -> None:
        self._config, self._heartbeat, self._carrier = config, heartbeat, Carrier(config)
        self._sources: dict[str, list[Source]] = {}
        for source in sources:
            if source.kafka:
                self._sources.setdefault(source.kafka, []).append(source)

    @property
    def topics(self) -> list[str]:
        """The names of the topics."""
        return list(self._sources)

    def run(self, worker: Worker) -> None:
        """Carries until a stop is requested. Raises ConnectionError where Kafka is unavailable."""
        options = {
            "group.id": "city-sources",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "allow.auto.create.topics": False,
            "queued.max.messages.kbytes": 16_384,
            "topic.metadata.refresh.interval.ms": 10_000,  # a topic may be created later
        }
        consumer = Consumer(self._config.kafka.options(options))
        try:
            self._carrier.open(source for sources in self._sources.values() for source in sources)
            # A group makes Kafka create its topic of offsets, which a city without such messages does not need.
            while not self._has_topic(consumer) and not worker.stop_requested.wait(_LOOK_SECONDS):
                worker.progress()
            consumer.subscribe(self.topics)
            while not worker.stop_requested.is_set():
                count = self._carry_next(consumer)
                worker.progress(count)
        except KafkaException as error:
            cause = self._config.kafka.explain(error.args[0])
            raise ConnectionError(f"Kafka at {self._config.kafka}: {cause}") from error
        finally:
            self._carrier.close()
            consumer.close()

    def _has_topic(self, consumer: Consumer) -> bool:
        existing = consumer.list_topics(timeout=_LOOK_SECONDS).topics
        return any(topic in existing for topic in self.topics)

    def _carry_next(self, consumer: Consumer) -> int:
        payloads: dict[str, list[bytes]] = {}
        messages = consumer.consume(_BATCH, _BATCH_SECONDS)
        for message in messages:
            error, topic = message.error(), message.topic()
            if error is not None:
                if error.code() not in _ABSENT:
                    raise KafkaException(error)
            elif topic is not None and (value := message.value()):
                payloads.setdefault(topic, []).append(value)
        for topic, values in payloads.items():
            for part in _in_parts(values):
                self._carrier.carry(self._sources[topic], part, topic, self._heartbeat)
        if payloads:
            consumer.commit(asynchronous=False)
        return len(messages)


def _in_parts(payloads: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Splits messages into parts of a bounded size: a feed of thousands of vehicles is a message."""
    part: list[bytes] = []
    size = 0
    for payload in payloads:
        if part and size + len(payload) > _PART_BYTES:
            yield part
            part, size = [], 0
        part.append(payload)
        size += len(payload)
    if part:
        yield part
