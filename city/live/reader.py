"""The city as it is now: the newest row of everything that is shown, and what has changed in the last half second.

A worker reads the topics that the stream publishes to; it begins some messages back, so that a server that was just
started knows the city too. It belongs to no consumer group: each server has all of it.
"""

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from city.features.online import online_store
from city.features.reader import FeatureReader, is_unknown
from city.live.layers import Layer, Row
from city.models.examples import inputs
from city.models.model import Model
from city.models.predictions import answers
from city.serving.versions import Versions
from city.settings import Settings
from city.stack.worker import Worker, describe

log = logging.getLogger(__name__)

TICK_SECONDS = 0.5
FEED = "scores"
_BACK = 5_000  # messages of each partition that a start begins before the end
_FEED_KEPT = 200
_FEED_A_TICK = 5_000
_PREDICT_SECONDS = 2.0
_LOOK_SECONDS = 3.0
_LOOK_AGAIN_SECONDS = 20.0
"""Between two looks for topics once all are there: partitions may be added to them."""


class Delta(NamedTuple):
    """Of one moment (ms since the epoch): JSON by layer."""

    sequence: int
    at: int
    fragments: dict[str, bytes]


class State:
    """A layer's rows. `settling` are windows that have not been open for long enough."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.rows: dict[str, Row] = {}
        self.changed: set[str] = set()
        self.gone: set[str] = set()
        self._settling: dict[str, Row] = {}
        self._ttl_ms = layer.ttl.total_seconds() * 1000
        self._settle_ms = layer.settle.total_seconds() * 1000

    def take(self, row: Row, now_ms: float) -> None:
        """What is older than what is known changes nothing; nor does what is older than the time to live."""
        key, at = row[0], row[1]
        held = self.rows.get(key)
        if now_ms - at > self._ttl_ms or (held is not None and at < held[1]):
            return
        if self._settle_ms and held is not None and at > held[1] and now_ms - at < self._settle_ms:
            self._settling[key] = row
            return
        if held is not None:
            row[self.layer.own :] = held[self.layer.own :]
        self.rows[key] = row
        self.changed.add(key)
        self.gone.discard(key)

    def pass_time(self, now_ms: float) -> None:
        """Windows settle, and keys of which nothing was heard go."""
        for key in [k for k, row in self._settling.items() if now_ms - row[1] >= self._settle_ms]:
            self.take(self._settling.pop(key), now_ms)
        for key in [k for k, row in self.rows.items() if now_ms - row[1] > self._ttl_ms]:
            del self.rows[key]
            self.changed.discard(key)
            self.gone.add(key)

    def predicted(self, key: str, values: Sequence[Any]) -> None:
        row = self.rows.get(key)
        if row is not None and row[self.layer.own :] != list(values):
            self.rows[key] = [*row[: self.layer.own], *values]
            self.changed.add(key)

    def delta(self) -> bytes | None:
        """What changed since the last one; None where nothing did."""
        if not self.changed and not self.gone:
            return None
        found = {"rows": [self.rows[key] for key in self.changed], "gone": list(self.gone)}
        self.changed, self.gone = set(), set()
        return orjson.dumps(found)

    def snapshot(self) -> bytes:
        about = {"columns": self.layer.header, "means": self.layer.means, "rows": list(self.rows.values())}
        return orjson.dumps(about)


class Live:
    """Reads, and every half second hands what changed to `publish`."""

    def __init__(
        self,
        config: Settings,
        layers: Sequence[Layer],
        feeds: Mapping[str, str],
        models: Mapping[str, Model],
        versions: Versions,
    ) -> None:
        self._config, self._feeds, self._models, self._versions = config, dict(feeds), models, versions
        self.states = {layer.name: State(layer) for layer in layers}
        self._by_kind = {layer.kind: self.states[layer.name] for layer in layers}
        self._feed: deque[dict[str, Any]] = deque(maxlen=_FEED_KEPT)
        self._fresh: list[dict[str, Any]] = []
        self.sequence = 0
        self.messages = 0
        self._error: str | None = "not read yet"
        self._lock = threading.Lock()
        self._kept = Delta(-1, 0, {})
        self.worker = Worker("live", self._run, expected=(OSError, KafkaException))
        self._publish: Callable[[Delta], None] = lambda delta: None
        self._readers: dict[str, FeatureReader] = {}
        self._assigned: set[tuple[str, int]] = set()
        self._positions: dict[tuple[str, int], int] = {}
        """The next offset of each partition: another consumer goes on where the one before was."""
        self._misunderstood: str | None = None
        self._predicted_at = self._looked_at = float("-inf")

    def start(self, publish: Callable[[Delta], None]) -> None:
        self._publish = publish
        self.worker.start()

    def stop(self) -> None:
        self.worker.stop(10)

    @property
    def error(self) -> str | None:
        """Why the picture is not up to date."""
        return self.worker.last_error or self._error

    def rows(self, layer: str) -> list[dict[str, Any]]:
        """A layer's rows, by column."""
        state = self.states[layer]
        with self._lock:
            return [dict(zip(state.layer.header, row, strict=True)) for row in state.rows.values()]

    def row(self, layer: str, key: str) -> dict[str, Any] | None:
        state = self.states[layer]
        held = state.rows.get(key)
        return dict(zip(state.layer.header, held, strict=True)) if held else None

    def scores(self) -> list[dict[str, Any]]:
        """What models said of single events, the newest last."""
        with self._lock:
            return list(self._feed)

    def snapshot(self) -> Delta:
        """All there is, with the number of the last delta that is in it."""
        with self._lock:
            if self._kept.sequence != self.sequence:
                found = {name: state.snapshot() for name, state in self.states.items()}
                found[FEED] = orjson.dumps({"rows": list(self._feed)})
                self._kept = Delta(self.sequence, int(time.time() * 1000), found)
            return self._kept

    def _run(self, worker: Worker) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._config.kafka,
                "group.id": f"city-live-{uuid.uuid4().hex}",  # required by librdkafka; never committed to
                "enable.auto.commit": False,
                "allow.auto.create.topics": False,
                "auto.offset.reset": "latest",
                "fetch.wait.max.ms": 50,
                "error_cb": self._failed,
                "log_level": 0,
                "reconnect.backoff.max.ms": 2_000,
            }
        )
        self._assigned, self._looked_at = set(), float("-inf")
        try:
            next_tick = time.monotonic() + TICK_SECONDS
            while not worker.stop_requested.is_set():
                try:
                    self._look_for_topics(consumer)
                except KafkaException as error:  # who listens is told what is known meanwhile
                    self._failed(error.args[0])
                read = self.messages
                while (left := next_tick - time.monotonic()) > 0 and not worker.stop_requested.is_set():
                    if self._assigned:
                        self._take(consumer.consume(2_000, min(left, 0.1)))
                    else:
                        worker.stop_requested.wait(left)
                self._tick()
                next_tick = max(next_tick + TICK_SECONDS, time.monotonic())
                worker.progress(self.messages - read)
        finally:
            consumer.close()

    def _failed(self, error: Any) -> None:
        self._error = f"Kafka at {self._config.kafka}: {error}"

    def _look_for_topics(self, consumer: Consumer) -> None:
        """Topics come to be when the stream first starts, and partitions are added to them. Raises KafkaException."""
        wanted = {*self._feeds, *(state.layer.topic for state in self.states.values())}
        complete = wanted == {topic for topic, _ in self._assigned}
        if time.monotonic() < self._looked_at + (_LOOK_AGAIN_SECONDS if complete else _LOOK_SECONDS):
            return
        self._looked_at = time.monotonic()
        known = consumer.list_topics(timeout=2).topics
        fresh = [
            self._beginning(consumer, topic, number)
            for topic in sorted(wanted & known.keys())
            for number in known[topic].partitions
            if (topic, number) not in self._assigned
        ]
        if fresh:
            consumer.incremental_assign(fresh)
            self._assigned |= {(part.topic, part.partition) for part in fresh}
            log.info("reading %s", ", ".join(sorted({part.topic for part in fresh})))
        self._error = None

    def _beginning(self, consumer: Consumer, topic: str, number: int) -> TopicPartition:
        """Where to begin: some messages back, or where the consumer before this one was."""
        back = _FEED_KEPT if topic in self._feeds else _BACK
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=2)
        position = self._positions.get((topic, number), high - back)
        return TopicPartition(topic, number, max(low, position if position <= high else high - back))

    def _take(self, messages: Sequence[Any]) -> None:
        now_ms = time.time() * 1000
        with self._lock:
            for message in messages:
                if message.error() is not None:
                    if message.error().code() != KafkaError._PARTITION_EOF:
                        self._failed(message.error())
                    continue
                self._error = None
                self.messages += 1
                # Before it is looked at: whatever it does to us, it does not come again.
                self._positions[message.topic(), message.partition()] = message.offset() + 1
                try:
                    self._one(message.topic(), orjson.loads(message.value()), now_ms)
                except Exception as error:  # of whoever may write to the topic; the picture goes on
                    log.debug("a message of %s that is not understood: %s", message.topic(), error)
                    if self._misunderstood is None:  # said once: there may be thousands
                        log.warning("a message of %s is not understood: %s", message.topic(), describe(error))
                    self._misunderstood = describe(error)

    def _one(self, topic: str, content: Mapping[str, Any], now_ms: float) -> None:
        if topic in self._feeds:
            told = {"model": self._feeds[topic], **content}
            self._feed.append(told)
            self._fresh.append(told)
        elif (state := self._by_kind.get(content["kind"])) is not None and state.layer.topic == topic:
            state.take(state.layer.row(content), now_ms)

    def _tick(self) -> None:
        if time.monotonic() > self._predicted_at + _PREDICT_SECONDS:
            self._predicted_at = time.monotonic()
            try:
                for state in self.states.values():
                    self._predict(state)
                self.worker.note(None)
            except Exception as error:  # a busy file, a model: what is read is shown without what is predicted
                if self.worker.last_error is None:
                    log.exception("the live predictions")
                self.worker.note(f"predictions: {describe(error)}")
        now_ms = time.time() * 1000
        with self._lock:
            fragments: dict[str, bytes] = {}
            for name, state in self.states.items():
                state.pass_time(now_ms)
                delta = state.delta()
                if delta is not None:
                    fragments[name] = delta
            if self._fresh:
                fragments[FEED] = orjson.dumps({"rows": self._fresh[-_FEED_A_TICK:]})
                self._fresh = []
            # Also where nothing changed: who listens is to know that it is up to date.
            self.sequence += 1
            made = Delta(self.sequence, int(now_ms), fragments)
        self._publish(made)

    def _predict(self, state: State) -> None:
        """What the champions say of the layer's keys, by their online features of now."""
        asked = state.layer.predictions
        keys = list(state.rows)
        if not asked or not keys:
            return
        columns: list[list[Any]] = []
        for name in asked.values():
            model, served = self._models.get(name), None
            if model is not None:
                served = self._versions.champion(name)
            if model is None or served is None:
                columns.append([None] * len(keys))
                continue
            reader = self._readers.get(name)
            if reader is None:
                reader = self._readers[name] = FeatureReader(online_store(self._config), model.online)
            found = reader.read([{model.view.entities[0]: key} for key in keys])
            columns.append(_said(model, served.exported, found))
        with self._lock:
            for key, values in zip(keys, zip(*columns, strict=True), strict=True):
                state.predicted(key, values)


def _said(model: Model, exported: Any, features: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Numbers to a tenth, or classes; None for an entity of which nothing is known."""
    import polars as pl

    known = [row for row in features if not is_unknown(row)]
    if not known:
        return [None] * len(features)
    frame = pl.DataFrame(known, infer_schema_length=None)
    told = answers(model, exported.calibration, exported.predict(inputs(model, frame)))["prediction"].to_list()
    values = iter([round(float(value), 1) for value in told] if model.kind == "regression" else told)
    return [None if is_unknown(row) else next(values) for row in features]
