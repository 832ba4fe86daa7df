"""Kafka as the hot path reads it: librdkafka in a thread of its own, offset ranges out, no consumer group."""

import json
import logging
import queue
import threading
import time
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from city.net import accepts, split_address
from city.stack.worker import Worker
from city.streaming.pacing import Pacing
from city.streaming.records import Offsets, RawBatch
from city.streaming.topics import topic_id

log = logging.getLogger(__name__)

FETCH = 20_000  # messages a call: few enough for a smooth queue, enough to make the call itself cheap
_IDLE_SECONDS = 0.5
_LAG_SECONDS = 0.5
_LOOK_SECONDS = 20.0  # between two looks at the topic itself: its partitions and its id
_STATISTICS_MS = 5_000
_ERROR_SECONDS = 6.0


class TopicReset(RuntimeError):
    """The topic is not the one that the lake's rows came from: it was made anew, or another Kafka is addressed."""


_RESET_MEND = "Point CITY_HOME at another folder, or at the Kafka that the data came from."


@dataclass(frozen=True)
class _Piece:
    values: list[bytes | None]
    partitions: list[int]
    offsets: list[int]
    arrived: list[int]


class KafkaSource:
    """Reads a topic's partitions from given offsets, into batches bounded by rows and by time."""

    def __init__(self, address: str, topic: str, rows: int, pacing: Pacing) -> None:
        self.topic = topic
        self._address, self._away = address, False
        self._failure: BaseException | None = None
        self._error: str | None = None
        self._error_at = 0.0
        self.expired: str | None = None
        """What Kafka deleted before it was read, if anything: a loss that no later success takes back."""
        self._rows, self._pacing = rows, pacing
        self.consumer = Consumer(
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
                # The broker holds a fetch back until there is a kilobyte's worth or this has passed: a fetch for every
                # single event would cost it more than the events do.
                "fetch.wait.max.ms": round(pacing.fetch_seconds * 1000),
                "fetch.min.bytes": 16_384,
                "statistics.interval.ms": _STATISTICS_MS,
                "stats_cb": self._on_statistics,
                "error_cb": self._on_error,
                "log_level": 0,
                "reconnect.backoff.max.ms": 2_000,
                "allow.auto.create.topics": False,
            }
        )
        self._pieces: queue.Queue[_Piece] = queue.Queue(maxsize=2 * max(1, rows // FETCH))
        self._stop = threading.Event()
        # Nothing of it is mended by a restart here: `poll` raises what it met, and the pipeline begins again.
        self._worker = Worker(f"kafka-{topic}", self._read, stop=self._stop, fatal=(BaseException,))
        self._admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
        self._topic_id: int | None = None
        self.changed = False
        """Whether the topic has other partitions than those that are read."""
        self._position: Offsets = {}
        self._highs: Offsets = {}
        self._ends: Offsets = {}
        """Where librdkafka will fetch next: beyond transaction markers, which are no messages."""

    @property
    def last_error(self) -> str | None:
        """Why nothing comes, or may not: no broker listens, or librdkafka complained a moment ago."""
        if self._away:
            return f"no Kafka listens at {self._address}"
        return self._error if time.monotonic() - self._error_at < _ERROR_SECONDS else None

    def partitions(self) -> list[int]:
        """The topic's partitions. Raises KafkaException when no broker answers or the topic is not there."""
        found = self.consumer.list_topics(self.topic, timeout=5).topics[self.topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return sorted(found.partitions)

    def topic_id(self) -> int | None:
        """63 bits of the topic's own id, which another topic of the same name does not have; None where the broker
        tells none. Raises KafkaException when no broker answers."""
        return topic_id(self._admin, self.topic)

    def verify(self, position: Offsets, resume: Offsets, recorded: int | None) -> int | None:
        """Raises TopicReset when the topic has another id than `recorded`, or ends before `position`; notes what
        expired from `resume` on before it was read. Gives the topic's id."""
        found = self.topic_id()
        if recorded is not None and found is not None and found != recorded:
            raise TopicReset(
                f"topic {self.topic!r} is not the one that the lake holds up to {position}: it was deleted and made "
                f"anew, or CITY_KAFKA_ADDRESS names another Kafka. {_RESET_MEND}"
            )
        self._topic_id = found
        for partition, offset in position.items():
            low, high = self.consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=5)
            self._highs[partition] = high
            if high < offset:
                raise TopicReset(
                    f"topic {self.topic!r} partition {partition} ends at {high}, but the lake holds it up to {offset}: "
                    f"the topic was deleted, or CITY_KAFKA_ADDRESS names another Kafka. {_RESET_MEND}"
                )
            if low > resume[partition]:
                gap = f"{self.topic}/{partition}: offsets {resume[partition]} to {low - 1} expired in Kafka unread"
                log.error("%s", gap)
                self.expired = f"{self.expired}; {gap}" if self.expired else gap
        return found

    def start(self, position: Offsets) -> None:
        """Begins to read at `position`."""
        self._position = dict(position)
        self.consumer.assign([TopicPartition(self.topic, p, offset) for p, offset in position.items()])
        self._worker.start()

    def poll(self) -> RawBatch | None:
        """The next batch, or None when nothing came for a while. Raises TopicReset, and what reading met."""
        if self._worker.failure is not None:
            raise self._worker.failure
        try:
            pieces = [self._pieces.get(timeout=_IDLE_SECONDS)]
        except queue.Empty:
            return None
        rows, ends = len(pieces[0].values), time.monotonic() + self._pacing.seconds
        while rows < self._rows:
            # Where messages come faster than the reader hands them over, more are worth waiting for.
            hurries = len(pieces[-1].values) >= FETCH
            try:
                piece = self._pieces.get(timeout=max(0.0, ends - time.monotonic()) if hurries else 0)
            except queue.Empty:
                break
            pieces.append(piece)
            rows += len(piece.values)
        return self._batch(pieces)

    def lag(self) -> int:
        """Messages that Kafka has and `poll` has not given out yet, as of the last half second."""
        return sum(self._lag_of(p, high) for p, high in self._highs.items())

    def _lag_of(self, partition: int, high: int) -> int:
        position = self._position.get(partition, 0)
        # All there is was fetched, and nothing of it waits: what is left are transaction markers.
        if position < high <= self._ends.get(partition, 0) and self._pieces.empty():
            return 0
        return max(0, high - position)

    def close(self) -> None:
        self._stop.set()
        while self._worker.is_alive():
            self._drain()
            self._worker.join(0.1)
        self._worker.dismiss()
        self.consumer.close()

    def _drain(self) -> None:
        while not self._pieces.empty():
            self._pieces.get_nowait()

    def _read(self, worker: Worker) -> None:
        """The only thread that uses the consumer once it runs: a second one can deadlock with `consume`."""
        noted = looked = time.monotonic()
        while not self._stop.is_set():
            # Here events gather: the call ends when there are many of them, or after the gathering time.
            messages: list[Any] = self.consumer.consume(FETCH, self._pacing.seconds)
            worker.progress(len(messages))
            now = time.monotonic()
            if now - noted > _LAG_SECONDS:
                noted = now
                self._note_highs()
                # librdkafka says that a broker is gone when it likes, and never that it is back.
                self._away = not messages and not any(accepts(*split_address(a)) for a in self._address.split(","))
            if now - looked > _LOOK_SECONDS:
                looked = now
                self._look()
            if not messages:
                continue
            if any(message.error() is not None for message in messages):
                self._note(messages)
                messages = [message for message in messages if message.error() is None]
            if not messages:
                continue
            self._error = None
            piece = _Piece(
                [message.value() for message in messages],
                [message.partition() for message in messages],
                [message.offset() for message in messages],
                [message.timestamp()[1] for message in messages],
            )
            while not self._stop.is_set():
                try:
                    self._pieces.put(piece, timeout=0.5)
                    break
                except queue.Full:
                    continue

    def _look(self) -> None:
        """Whether the topic has got further partitions, or is another one. Raises TopicReset."""
        try:
            self.changed = self.changed or set(self.partitions()) != self._position.keys()
            found = self.topic_id()
        except KafkaException as error:
            log.debug("%s cannot be looked at: %s", self.topic, error)
            return
        if None not in (found, self._topic_id) and found != self._topic_id:
            raise TopicReset(f"topic {self.topic!r} was deleted and made anew while it was read. {_RESET_MEND}")

    def _on_statistics(self, text: str) -> None:
        for partition in json.loads(text)["topics"].get(self.topic, {"partitions": {}})["partitions"].values():
            if partition["partition"] in self._position and partition["fetchq_cnt"] == 0:
                self._ends[partition["partition"]] = partition["next_offset"]

    def _note_highs(self) -> None:
        for partition in list(self._position):
            _, high = self.consumer.get_watermark_offsets(TopicPartition(self.topic, partition), cached=True)
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
