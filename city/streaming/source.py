"""Reads Kafka for the hot path: librdkafka in a thread of its own, offset ranges out, no consumer group."""

import json
import logging
import queue
import threading
import time
from dataclasses import dataclass
from itertools import chain
from typing import cast

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from city.kafka import KafkaServer
from city.stack.worker import Worker
from city.streaming.pacing import Pacing
from city.streaming.records import KafkaMessage, Offsets, RawBatch
from city.streaming.topics import topic_id

log = logging.getLogger(__name__)

FETCH = 20_000  # messages a call: few enough for a smooth queue, enough to make the call itself cheap
_IDLE_SECONDS = 0.5
_LAG_SECONDS = 0.5
_LOOK_SECONDS = 20.0  # between two checks of the topic itself: its partitions and its id
_STATISTICS_MS = 1_000
_CONNECTED = ("UP", "UPDATE", "REAUTH")
"""The states of a broker in librdkafka's statistics in which it is connected."""
_ERROR_SECONDS = 6.0


class TopicReset(RuntimeError):
    """The topic is not the one that the lake's rows came from.

    It was deleted and created again, or the address is that of another Kafka.
    """


_RESET_MEND = "Point CITY_HOME at another folder, or at the Kafka that the data came from."


@dataclass(frozen=True)
class _Piece:
    """Messages in the order in which they were read. `arrived` has Kafka's timestamps, in milliseconds."""

    values: list[bytes | None]
    partitions: list[int]
    offsets: list[int]
    arrived: list[int]


class KafkaSource:
    """Reads a topic's partitions from given offsets, into batches bounded by rows and by time."""

    def __init__(self, kafka: KafkaServer, topic: str, rows: int, pacing: Pacing) -> None:
        self.topic = topic
        self._kafka, self._away = kafka, False
        self._connected = True
        self._failure: BaseException | None = None
        self._error: str | None = None
        self._error_at = 0.0
        self.expired: str | None = None
        """The offsets that Kafka deleted before they were read, if any. No later success clears this loss."""
        self._rows, self._pacing = rows, pacing
        self.consumer = Consumer(
            {
                **kafka.options(),
                "group.id": f"city-stream-{topic}",  # required by librdkafka; never committed to
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "check.crcs": False,
                "fetch.message.max.bytes": 2_097_152,
                "queued.max.messages.kbytes": 131_072,
                "queued.min.messages": 100_000,
                # By default librdkafka waits one second after its queue was full. That wait alone costs three quarters
                # of the throughput.
                "fetch.queue.backoff.ms": 10,
                # The broker delays a fetch until `fetch.min.bytes` are there or this time has passed. A fetch for each
                # event costs the broker more than the events do.
                "fetch.wait.max.ms": round(pacing.fetch_seconds * 1000),
                "fetch.min.bytes": 16_384,
                "statistics.interval.ms": _STATISTICS_MS,
                "stats_cb": self._on_statistics,
                "error_cb": self._on_error,
                "reconnect.backoff.max.ms": 2_000,
                "allow.auto.create.topics": False,
            }
        )
        self._pieces: queue.Queue[_Piece] = queue.Queue(maxsize=2 * max(1, rows // FETCH))
        self._stop = threading.Event()
        # A restart of this worker repairs no error: `poll` raises the error, and the pipeline starts again.
        self._worker = Worker(f"kafka-{topic}", self._read_messages, stop=self._stop, fatal=(BaseException,))
        self._admin = AdminClient(kafka.options())
        self._topic_id: int | None = None
        self.changed = False
        """Whether the topic's partitions differ from those that this source reads."""
        self._position: Offsets = {}
        self._highs: Offsets = {}
        self._ends: Offsets = {}
        """The next offset that librdkafka fetches. It is beyond transaction markers, which are not messages."""

    @property
    def last_error(self) -> str | None:
        """The current error, or None: no broker is connected, or librdkafka reported an error a few seconds ago."""
        if self._away:
            return f"Kafka at {self._kafka} is unavailable: no broker is connected"
        return self._error if time.monotonic() - self._error_at < _ERROR_SECONDS else None

    def partitions(self) -> list[int]:
        """Returns the topic's partitions. Raises KafkaException when no broker answers or the topic is missing."""
        metadata = self.consumer.list_topics(self.topic, timeout=5).topics[self.topic]
        if metadata.error is not None:
            raise KafkaException(metadata.error)
        return sorted(metadata.partitions)

    def topic_id(self) -> int | None:
        """Returns 63 bits of the topic's id; another topic of the same name has another id.

        Returns None where the broker has no topic ids. Raises KafkaException when no broker answers.
        """
        return topic_id(self._admin, self.topic)

    def verify(self, position: Offsets, resume: Offsets, recorded: int | None) -> int | None:
        """Checks that the topic is the one that the lake's rows came from, and returns the topic's id.

        Notes in `expired` the offsets from `resume` on that Kafka deleted before they were read. Raises TopicReset when
        the topic has another id than `recorded`, or ends before `position`.
        """
        current = self.topic_id()
        if recorded is not None and current is not None and current != recorded:
            raise TopicReset(
                f"topic {self.topic!r} is not the one that the lake holds up to {position}: it was deleted and "
                f"created again, or CITY_KAFKA_ADDRESS names another Kafka. {_RESET_MEND}"
            )
        self._topic_id = current
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
        return current

    def start(self, position: Offsets) -> None:
        """Starts to read at `position`."""
        self._position = dict(position)
        self.consumer.assign([TopicPartition(self.topic, p, offset) for p, offset in position.items()])
        self._worker.start()

    def poll(self) -> RawBatch | None:
        """Returns the next batch, or None when no message came for a while.

        Raises TopicReset, and the errors of the reader thread.
        """
        if self._worker.failure is not None:
            raise self._worker.failure
        try:
            pieces = [self._pieces.get(timeout=_IDLE_SECONDS)]
        except queue.Empty:
            return None
        rows, ends = len(pieces[0].values), time.monotonic() + self._pacing.seconds
        while rows < self._rows:
            # A full piece shows that messages come faster than the reader passes them on, so this call waits for more.
            is_full = len(pieces[-1].values) >= FETCH
            try:
                piece = self._pieces.get(timeout=max(0.0, ends - time.monotonic()) if is_full else 0)
            except queue.Empty:
                break
            pieces.append(piece)
            rows += len(piece.values)
        return self._join_pieces(pieces)

    def lag(self) -> int:
        """Returns the number of messages that Kafka has and `poll` has not returned yet, as of the last half second."""
        return sum(self._partition_lag(p, high) for p, high in self._highs.items())

    def _partition_lag(self, partition: int, high: int) -> int:
        position = self._position.get(partition, 0)
        # Every message was fetched and none waits here: the remaining offsets are transaction markers.
        if position < high <= self._ends.get(partition, 0) and self._pieces.empty():
            return 0
        return max(0, high - position)

    def close(self) -> None:
        """Stops the reader thread and closes the consumer."""
        self._stop.set()
        while self._worker.is_alive():
            self._drain_pieces()
            self._worker.join(0.1)
        self._worker.dismiss()
        self.consumer.close()

    def _drain_pieces(self) -> None:
        while not self._pieces.empty():
            self._pieces.get_nowait()

    def _read_messages(self, worker: Worker) -> None:
        """Reads messages into pieces, and checks Kafka and the topic from time to time.

        No other thread uses the consumer while this one runs: a second thread can deadlock with `consume`.
        """
        noted = looked = time.monotonic()
        while not self._stop.is_set():
            # Events gather in this call. It ends when there are many of them, or after the gathering time.
            messages = cast("list[KafkaMessage]", self.consumer.consume(FETCH, self._pacing.seconds))
            worker.progress(len(messages))
            now = time.monotonic()
            if now - noted > _LAG_SECONDS:
                noted = now
                self._note_highs()
                # Messages that librdkafka fetched before Kafka went away are still read.
                self._away = not messages and not self._connected
            if now - looked > _LOOK_SECONDS:
                looked = now
                self._check_topic()
            if not messages:
                continue
            if any(message.error() is not None for message in messages):
                self._note_errors(messages)
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

    def _check_topic(self) -> None:
        """Notes in `changed` whether the topic has other partitions. Raises TopicReset when it is another topic."""
        try:
            self.changed = self.changed or set(self.partitions()) != self._position.keys()
            current = self.topic_id()
        except KafkaException as error:
            log.debug("cannot query %s: %s", self.topic, error)
            return
        if None not in (current, self._topic_id) and current != self._topic_id:
            raise TopicReset(f"topic {self.topic!r} was deleted and created again while it was read. {_RESET_MEND}")

    def _on_statistics(self, text: str) -> None:
        statistics = json.loads(text)
        # The error callback reports that a broker is gone, sometimes late, and never that it is back.
        self._connected = any(broker["state"] in _CONNECTED for broker in statistics["brokers"].values())
        for partition in statistics["topics"].get(self.topic, {"partitions": {}})["partitions"].values():
            if partition["partition"] in self._position and partition["fetchq_cnt"] == 0:
                self._ends[partition["partition"]] = partition["next_offset"]

    def _note_highs(self) -> None:
        for partition in list(self._position):
            _, high = self.consumer.get_watermark_offsets(TopicPartition(self.topic, partition), cached=True)
            if high >= 0:
                self._highs[partition] = high

    def _join_pieces(self, pieces: list[_Piece]) -> RawBatch:
        partitions = np.concatenate([np.asarray(piece.partitions, np.int32) for piece in pieces])
        offsets = np.concatenate([np.asarray(piece.offsets, np.int64) for piece in pieces])
        arrived = np.concatenate([np.asarray(piece.arrived, np.int64) for piece in pieces]) * 1000
        present = np.unique(partitions)
        start = {int(p): self._position[int(p)] for p in present}
        end = {int(p): int(offsets[partitions == p].max()) + 1 for p in present}
        self._position |= end
        values = list(chain.from_iterable(piece.values for piece in pieces))
        return RawBatch(values, partitions, offsets, arrived, start, end)

    def _note_errors(self, messages: list[KafkaMessage]) -> None:
        for message in messages:
            if (error := message.error()) is not None:
                self._on_error(error)

    def _on_error(self, error: KafkaError) -> None:
        if self.last_error is None:  # the error is logged once, not at each of librdkafka's attempts
            log.warning("%s: Kafka: %s", self.topic, error.str())
        self._error, self._error_at = f"Kafka: {error.str()}", time.monotonic()
