"""Reads the topics that domains declare conditions on, and reports alarms that begin or end to the alert store.

The reader belongs to no consumer group. The transaction that writes the alarms also writes the offsets and the state of
each condition. So a reader that is killed continues from there: it loses nothing and repeats nothing.
A person who is erased (`city forget`) is dropped from the reader's memory before it writes again.
Where several servers share a store, one of them reads. Another one takes over when it ends.
"""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import orjson
import sqlalchemy as sa
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from city.alerts.condition_watch import ConditionWatch
from city.alerts.conditions import Condition, Message
from city.alerts.lease import Lease
from city.alerts.model import Finding
from city.alerts.store import AlertStore, alert_store
from city.lake.erasures import Erasures, writing
from city.settings import Settings
from city.stack.worker import Worker, describe
from city.streaming.records import KafkaMessage
from city.streaming.topic_reader import TopicReader
from city.streaming.topics import topic_id

log = logging.getLogger(__name__)

STATE = "domain alarms"
"""The name of the reader's state in the store. The state of each condition's watch is below this name (`state_of`)."""
_BATCH, _BATCH_SECONDS = 1_000, 1.0
_SAVE_SECONDS = 30.0
"""Offsets without a finding are saved this often. After a kill these messages are read again, with the same result."""
_STANDBY_SECONDS = 2.0


def state_of(condition: str) -> str:
    """The name under which the store remembers the state of a condition's watch."""
    return f"{STATE}/{condition}"


class AlarmReader:
    """Feeds the messages of topics to the watches of conditions."""

    def __init__(
        self, config: Settings, declared: Sequence[Condition], open_store: Callable[[], AlertStore] | None = None
    ) -> None:
        """`open_store` returns the store that the rest of this process uses. Without it, the reader opens its own."""
        self._config, self._conditions = config, tuple(declared)
        self._open_store = open_store or cache(lambda: alert_store(config))
        expected = (OSError, KafkaException, sa.exc.SQLAlchemyError)
        self.worker = Worker("domain alarms", self._run, expected=expected)
        self.unreadable = 0
        """Messages that no condition understood."""
        self.reading = False
        """Whether this reader is the one of several that reads."""

    def start(self) -> None:
        """Starts the reader's worker, unless no condition is declared."""
        if self._conditions:
            self.worker.start()

    def stop(self) -> None:
        """Stops the reader's worker, and waits up to 10 s for it."""
        self.worker.stop(10)

    def _run(self, worker: Worker) -> None:
        store = self._open_store()
        lease = Lease(self._config.alerts_store, "reader")
        try:
            while not lease.acquire():
                worker.progress()
                if worker.stop_requested.wait(_STANDBY_SECONDS):
                    return
            self.reading = True
            _Session(self, self._config, store, lease, self._conditions).run(worker)
        finally:
            self.reading = False
            lease.release()


class _Session:
    """Reads messages from the moment this process gets the lease until the process ends or an error occurs."""

    def __init__(
        self, reader: AlarmReader, config: Settings, store: AlertStore, lease: Lease, conditions: Sequence[Condition]
    ) -> None:
        self._reader, self._config, self._store, self._lease = reader, config, store, lease
        saved = store.remembered(STATE) or {}
        self._began: float = saved.get("began") or time.time()
        states = store.remembered_below(state_of(""))
        earlier = saved.get("watches", {})  # an earlier version stored the states of all watches under one name
        self._watches = {c.name: _load_watch(c, states.get(state_of(c.name), earlier.get(c.name))) for c in conditions}
        for watch in self._watches.values():
            watch.changed = watch.condition.name in earlier
        self._undeclared = states.keys() - {state_of(name) for name in self._watches}
        self._by_topic: dict[str, list[ConditionWatch]] = {}
        for watch in self._watches.values():
            self._by_topic.setdefault(watch.condition.topic, []).append(watch)
        topics = saved.get("topics", {})
        self._ids: dict[str, int | None] = {name: topic["id"] for name, topic in topics.items()}
        self._positions = {
            name: {int(partition): offset for partition, offset in topic["positions"].items()}
            for name, topic in topics.items()
        }
        """By topic that was ever looked for, and by partition: the next offset."""
        self._erasures = Erasures(config.home, saved.get("erasures"))
        self._admin = AdminClient(config.kafka.options())
        self._topics = TopicReader(
            config.kafka,
            self._by_topic,
            "city-domain-alarms",
            self._start_offsets,
            # The reset applies also to a topic that was recreated: all its messages are new.
            {"auto.offset.reset": "earliest", "queued.max.messages.kbytes": 4_096},
            on_look=self._look_at,
        )
        self._saved_at = float("-inf")
        self._pending: dict[str, Finding] = {}
        self._unsaved = False

    def run(self, worker: Worker) -> None:
        """Reads until a stop is requested. Raises KafkaException or SQLAlchemyError where a server is unavailable."""
        self._topics.open()
        try:
            while not worker.stop_requested.is_set():
                self._topics.look_for_topics()
                messages = self._topics.read(_BATCH, _BATCH_SECONDS, worker.stop_requested)
                self.take(messages)
                worker.progress(len(messages))
                worker.note(self._describe_problem())
            self._commit()
        finally:
            self._topics.close()

    def take(self, messages: Sequence[KafkaMessage]) -> None:
        """Reports the alarms that the messages begin or end. No message ends the loop, whatever its content."""
        for message in messages:
            self._take_message(message)
        # A transaction has one finding of a cause, and the state that belongs to it. An alarm that begins and ends in
        # one batch is raised before it is cleared.
        if self._pending:
            self._commit()
        for watch in self._watches.values():
            self._pending |= {finding.cause: finding for finding in watch.pass_time()}
        is_due = self._unsaved and time.monotonic() - self._saved_at >= _SAVE_SECONDS
        if self._pending or is_due or self._erasures.are_new():
            self._commit()

    def _take_message(self, message: KafkaMessage) -> None:
        topic, partition = message.topic(), message.partition()
        arrived = message.timestamp()[1] / 1000
        try:
            content = orjson.loads(message.value() or b"")
            if not isinstance(content, dict):
                raise ValueError(f"got {type(content).__name__}; expected a JSON object")
        except ValueError as error:
            self._count_unreadable(topic, error)
            content = {}
        for watch in self._by_topic[topic] if content else ():
            if not watch.condition.only or content.get("kind") == watch.condition.only:
                self._offer_message(watch, content, partition, arrived)
        self._positions[topic][partition] = message.offset() + 1
        self._unsaved = True

    def _offer_message(self, watch: ConditionWatch, content: Message, partition: int, arrived: float) -> None:
        try:
            cause = watch.condition.cause(watch.key(content))
        except ValueError as error:
            self._count_unreadable(watch.condition.topic, error)
            return
        if cause in self._pending:
            self._commit()
        try:
            finding = watch.take(content, partition, arrived)
        except Exception as error:  # anybody may write anything to the topic
            self._count_unreadable(watch.condition.topic, error)
            return
        if finding is not None:
            self._pending[cause] = finding

    def _commit(self) -> None:
        """Reports the pending findings with the offsets that they were read to, and without persons who were erased."""
        with writing(self._config.home):
            self._forget_erased()
            self._write_findings()

    def _forget_erased(self) -> None:
        """Drops the keys of persons who were erased: otherwise their state in memory would be written again.

        Their alarms end, under their own causes or under causes in which the erasure has already masked the key. These
        are the active alarms that no watch has open.
        """
        erasures = self._erasures.read()
        if not erasures:
            return
        followed, causes = set[str](), tuple(watch.condition.cause("") for watch in self._watches.values())
        for watch in self._watches.values():
            for key in [key for key in watch.keys if any(erasure.is_of(key) for erasure in erasures)]:
                watch.forget(key)
                self._pending.pop(watch.condition.cause(key), None)
            followed |= {watch.condition.cause(key) for key in watch.open}
        ended = {cause for cause in self._store.active_causes() if cause.startswith(causes)} - followed
        self._pending |= {cause: Finding(cause, state="passing") for cause in ended}

    def _write_findings(self) -> None:
        self._lease.check()
        moment = datetime.now(UTC)
        settled = moment.timestamp() - self._began >= timedelta(hours=self._config.alert_domains_after).total_seconds()
        topics = {name: {"id": self._ids.get(name), "positions": at} for name, at in self._positions.items()}
        changed = [watch for watch in self._watches.values() if watch.changed]
        state = {
            STATE: {"began": self._began, "topics": topics, "erasures": self._erasures.positions},
            **{state_of(watch.condition.name): watch.state for watch in changed},
            **dict.fromkeys(self._undeclared),
        }
        self._store.sync_findings(self._pending.values() if settled else [], now=moment, remember=state)
        for watch in changed:
            watch.changed = False
        self._undeclared = set()
        self._pending, self._unsaved, self._saved_at = {}, False, time.monotonic()

    def _look_at(self, topic: str, exists: bool) -> None:
        if exists:
            self._forget_replaced(topic, topic_id(self._admin, topic))
        else:  # from now on the reader waits for the topic, and will read it from its first message
            self._unsaved |= self._positions.setdefault(topic, {}) == {}

    def _forget_replaced(self, topic: str, current_id: int | None) -> None:
        """Restarts a topic that was deleted and recreated: the old offsets belong to other messages."""
        saved_id, self._ids[topic] = self._ids.get(topic), current_id
        if None in (saved_id, current_id) or saved_id == current_id:
            return
        log.warning("topic %s was recreated: reading it from the beginning", topic)
        self._positions[topic], self._unsaved = {}, True
        self._topics.unassign(topic)

    def _start_offsets(self, consumer: Consumer, topic: str, partitions: Sequence[int]) -> list[TopicPartition]:
        """The partitions with the offsets to start at.

        A partition that was read before starts where the reader stopped. A topic that is seen for the first time starts
        at its end, because its messages are older than the reader. A partition that was added later starts at its
        beginning.
        """
        positions = self._positions.get(topic)
        if positions is None:  # set only with the ends of all partitions: one without would start at its beginning
            ends = {n: consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=5)[1] for n in partitions}
            positions = self._positions[topic] = ends
            self._unsaved = True
        return [TopicPartition(topic, number, positions.get(number, OFFSET_BEGINNING)) for number in partitions]

    def _describe_problem(self) -> str | None:
        """The text that the status of the worker shows; None where nothing is wrong."""
        full = [name for name, watch in self._watches.items() if watch.overflowed]
        if full:
            return f"more alarms are open than are followed: {', '.join(full)}; further ones are not raised"
        return self._topics.error

    def _count_unreadable(self, topic: str, error: Exception) -> None:
        if not self._reader.unreadable:  # logged once: there may be thousands
            log.warning("cannot decode a message of %s: %s", topic, describe(error))
        self._reader.unreadable += 1


def _load_watch(condition: Condition, state: Any) -> ConditionWatch:
    """A watch with its saved state, or without where the state cannot be read."""
    try:
        return ConditionWatch(condition, state)
    except (TypeError, ValueError, AttributeError) as error:  # another version of the program saved the state
        log.warning("cannot decode the stored state of %s, so it starts again: %s", condition.name, describe(error))
        return ConditionWatch(condition)
