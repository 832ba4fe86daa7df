"""Reads the messages of topics without a consumer group: assigns partitions as they appear, and leaves errors out."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from city.kafka import KafkaServer
from city.streaming.records import KafkaMessage

log = logging.getLogger(__name__)

_START_SECONDS = 60.0
_FIRST_LOOK_SECONDS, _LOOK_SECONDS, _LOOK_AGAIN_SECONDS = 0.5, 3.0, 20.0
"""The time between two looks for topics: while some are missing, in the first minute and later, and once all exist
(partitions may be added)."""

StartOffsets = Callable[[Consumer, str, list[int]], list[TopicPartition]]
"""Returns partitions of a topic with the offsets to start at. Arguments: the consumer, the topic, the partitions."""


class TopicReader:
    """Reads topics that may not exist yet. Call `open`, then `look_for_topics` and `read` in turn, then `close`.

    `group` is a name that librdkafka requires; nothing is committed to it. `options` are further options of the
    consumer. `seconds` is the timeout of a look.
    """

    def __init__(
        self,
        kafka: KafkaServer,
        topics: Collection[str],
        group: str,
        start: StartOffsets,
        options: Mapping[str, object],
        seconds: float = 5.0,
        on_look: Callable[[str, bool], None] = lambda topic, exists: None,
    ) -> None:
        """`on_look` is called with each topic and whether it exists, before its new partitions are assigned."""
        self.error: str | None = "not read yet"
        """Why messages may be missing; None where all topics are read."""
        self._kafka, self._topics = kafka, frozenset(topics)
        self._start, self._seconds, self._on_look = start, seconds, on_look
        self._options = {
            **kafka.options(),
            "group.id": group,
            "enable.auto.commit": False,
            "allow.auto.create.topics": False,
            "error_cb": self._note_error,
            "reconnect.backoff.max.ms": 2_000,
            **options,
        }
        self._assigned: set[tuple[str, int]] = set()
        self._looked_at = self._opened_at = float("-inf")

    def open(self) -> None:
        """Creates the consumer. It has no partitions before the next look."""
        self.consumer = Consumer(self._options)
        self._assigned, self._looked_at, self._opened_at = set(), float("-inf"), time.monotonic()

    def close(self) -> None:
        """Closes the consumer."""
        self.consumer.close()

    def look_for_topics(self) -> None:
        """Assigns the partitions that were created since the last look, where the next look is due.

        Topics are created when the stream first starts, and partitions may be added to them. While Kafka is unavailable
        `error` has the reason, and the partitions that are assigned are still read.
        """
        if time.monotonic() < self._looked_at + self._seconds_between_looks():
            return
        self._looked_at = time.monotonic()
        try:
            existing = self.consumer.list_topics(timeout=self._seconds).topics
            for topic in sorted(self._topics):
                self._on_look(topic, topic in existing)
                if topic in existing:
                    self._assign(topic, list(existing[topic].partitions))
        except KafkaException as error:
            self._note_error(error.args[0])
        else:
            self.error = None

    def _seconds_between_looks(self) -> float:
        if {topic for topic, _ in self._assigned} == self._topics:
            return _LOOK_AGAIN_SECONDS
        return _FIRST_LOOK_SECONDS if time.monotonic() < self._opened_at + _START_SECONDS else _LOOK_SECONDS

    def unassign(self, topic: str) -> None:
        """Stops reading a topic. The next look, or the one under way, assigns its partitions again."""
        assigned = [TopicPartition(topic, number) for name, number in self._assigned if name == topic]
        if assigned:
            self.consumer.incremental_unassign(assigned)
        self._assigned -= {(topic, part.partition) for part in assigned}

    def read(self, limit: int, seconds: float, stop: threading.Event) -> list[KafkaMessage]:
        """Returns the next messages, at most `limit`, after at most `seconds`. Errors among them are noted, not
        returned. Waits where no partition is assigned, unless `stop` is set."""
        if not self._assigned:
            stop.wait(seconds)
            return []
        messages = cast("list[KafkaMessage]", self.consumer.consume(limit, seconds))
        for message in messages:
            if (error := message.error()) is None:
                self.error = None
            elif error.code() != KafkaError._PARTITION_EOF:
                self._note_error(error)
        return [message for message in messages if message.error() is None]

    def _assign(self, topic: str, partitions: list[int]) -> None:
        fresh = [number for number in partitions if (topic, number) not in self._assigned]
        if fresh:
            self.consumer.incremental_assign(self._start(self.consumer, topic, fresh))
            self._assigned |= {(topic, number) for number in fresh}
            log.info("reading %s", topic)

    def _note_error(self, error: KafkaError) -> None:
        self.error = f"Kafka at {self._kafka}: {self._kafka.explain(error)}"
