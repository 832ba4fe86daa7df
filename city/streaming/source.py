"""Kafka as the hot path reads it: librdkafka in a thread of its own, offset ranges out, no consumer group."""

import logging
import queue
import threading
import time
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from city.net import accepts, split_address
from city.streaming.records import Offsets, RawBatch

log = logging.getLogger(__name__)

_FETCH = 20_000  # messages a call: few enough for a smooth queue, enough to make the call itself cheap
_POLL_SECONDS = 0.05
_LAG_SECONDS = 0.5
_ERROR_SECONDS = 6.0


class TopicReset(RuntimeError):
    """The topic has less than the lake already holds of it: it was deleted or another Kafka is addressed."""


@dataclass(frozen=True)
class _Piece:
    values: list[bytes | None]
    partitions: list[int]
    offsets: list[int]
    arrived: list[int]


class KafkaSource:
    """Reads a topic's partitions from given offsets, into batches bounded by rows and by time."""

    def __init__(self, address: str, topic: str, rows: int, seconds: float) -> None:
        self.topic = topic
        self._address, self._away = address, False
        self._failure: BaseException | None = None
        self._error: str | None = None
        self._error_at = 0.0
        self.expired: str | None = None
        """What Kafka deleted before it was read, if anything: a loss that no later success takes back."""
        self._rows, self._seconds = rows, seconds
        self._consumer = Consumer(
            {
                "bootstrap.servers": address,
                "group.id": f"city-stream-{topic}",  # required by librdkafka; never committed to
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "check.crcs": False,
                "fetch.message.max.bytes": 2_097_152,
                "queued.max.messages.kbytes": 131_072,
                "queued.min.messages": 100_000,
                # By default librdkafka waits a second after its queue was full: that alone costs three quarters
                # of what it can read.
                "fetch.queue.backoff.ms": 10,
                "fetch.wait.max.ms": 20,
                "error_cb": self._on_error,
                "log_level": 0,
                "reconnect.backoff.max.ms": 2_000,
                "allow.auto.create.topics": False,
            }
        )
        self._pieces: queue.Queue[_Piece] = queue.Queue(maxsize=2 * max(1, rows // _FETCH))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._guard, name=f"kafka-{topic}", daemon=True)
        self._position: Offsets = {}
        self._highs: Offsets = {}

    @property
    def last_error(self) -> str | None:
        """Why nothing comes, or may not: no broker listens, or librdkafka complained a moment ago."""
        if self._away:
            return f"no Kafka listens at {self._address}"
        return self._error if time.monotonic() - self._error_at < _ERROR_SECONDS else None

    def partitions(self) -> list[int]:
        """The topic's partitions. Raises KafkaException when no broker answers or the topic is not there."""
        found = self._consumer.list_topics(self.topic, timeout=5).topics[self.topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return sorted(found.partitions)

    def verify(self, position: Offsets) -> None:
        """Raises TopicReset when the topic ends before `position`; notes what expired before it was read."""
        for partition, offset in position.items():
            low, high = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=5)
            self._highs[partition] = high
            if high < offset:
                raise TopicReset(
                    f"topic {self.topic!r} partition {partition} ends at {high}, but the lake holds it up to {offset}: "
                    "the topic was deleted, or CITY_KAFKA_ADDRESS names another Kafka. "
                    "Point CITY_HOME at another folder, or at the Kafka that the data came from."
                )
            if low > offset:
                gap = f"{self.topic}/{partition}: offsets {offset} to {low - 1} expired in Kafka unread"
                log.error("%s", gap)
                self.expired = f"{self.expired}; {gap}" if self.expired else gap

    def start(self, position: Offsets) -> None:
        """Begins to read at `position`."""
        self._position = dict(position)
        self._consumer.assign([TopicPartition(self.topic, p, offset) for p, offset in position.items()])
        self._thread.start()

    def poll(self) -> RawBatch | None:
        """The next batch, or None when nothing came within the batch time."""
        if self._failure is not None:
            raise self._failure
        pieces: list[_Piece] = []
        rows, deadline = 0, time.monotonic() + self._seconds
        while rows < self._rows:
            try:
                piece = self._pieces.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            pieces.append(piece)
            rows += len(piece.values)
        return self._batch(pieces) if pieces else None

    def lag(self) -> int:
        """Messages that Kafka has and `poll` has not given out yet, as of the last half second."""
        return sum(max(0, high - self._position.get(p, 0)) for p, high in self._highs.items())

    def close(self) -> None:
        self._stop.set()
        while self._thread.is_alive():
            self._drain()
            self._thread.join(0.1)
        self._consumer.close()

    def _drain(self) -> None:
        while not self._pieces.empty():
            self._pieces.get_nowait()

    def _guard(self) -> None:
        try:
            self._read()
        except BaseException as error:  # `poll` raises it where somebody hears it
            self._failure = error

    def _read(self) -> None:
        """The only thread that uses the consumer once it runs: a second one can deadlock with `consume`."""
        noted = 0.0
        while not self._stop.is_set():
            messages: list[Any] = self._consumer.consume(_FETCH, _POLL_SECONDS)
            if time.monotonic() - noted > _LAG_SECONDS:
                noted = time.monotonic()
                self._note_highs()
                # librdkafka says that a broker is gone when it likes, and never that it is back.
                self._away = not any(accepts(*split_address(one)) for one in self._address.split(","))
            if not messages:
                continue
            offsets = [message.offset() for message in messages]
            if min(offsets) < 0:  # an error has no offset
                self._note(messages)
                messages = [message for message in messages if message.error() is None]
                offsets = [message.offset() for message in messages]
            if not messages:
                continue
            self._error = None
            piece = _Piece(
                [message.value() for message in messages],
                [message.partition() for message in messages],
                offsets,
                [message.timestamp()[1] for message in messages],
            )
            while not self._stop.is_set():
                try:
                    self._pieces.put(piece, timeout=0.5)
                    break
                except queue.Full:
                    continue

    def _note_highs(self) -> None:
        for partition in list(self._position):
            _, high = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), cached=True)
            if high >= 0:
                self._highs[partition] = high

    def _batch(self, pieces: list[_Piece]) -> RawBatch:
        partitions = np.concatenate([np.asarray(piece.partitions, np.int32) for piece in pieces])
        offsets = np.concatenate([np.asarray(piece.offsets, np.int64) for piece in pieces])
        arrived = np.concatenate([np.asarray(piece.arrived, np.int64) for piece in pieces]) * 1000
        seen = np.unique(partitions)
        start = {int(p): self._position[int(p)] for p in seen}
        end = {int(p): int(offsets[partitions == p].max()) + 1 for p in seen}
        self._position |= end
        values = list(chain.from_iterable(piece.values for piece in pieces))
        return RawBatch(values, partitions, offsets, arrived, start, end)

    def _note(self, messages: list[Any]) -> None:
        for message in messages:
            if message.error() is not None:
                self._on_error(message.error())

    def _on_error(self, error: KafkaError) -> None:
        if self.last_error is None:  # it is said once, not at each of librdkafka's attempts
            log.warning("%s: Kafka: %s", self.topic, error.str())
        self._error, self._error_at = f"Kafka: {error.str()}", time.monotonic()
