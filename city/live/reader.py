"""The live city: the newest row of each key of each layer, and the changes of the last half second.

A worker reads the topics that the stream publishes to. It starts some messages before the end, so that a server that
has just started knows the city too. It belongs to no consumer group: each server reads all messages.
"""

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import orjson
from confluent_kafka import Consumer, KafkaException, TopicPartition

from city.features.online import online_store
from city.features.reader import FeatureReader, is_unknown
from city.live.layer_state import Prediction, State
from city.live.layers import Layer, Message
from city.live.messages import Score, ScoreFeed
from city.models.examples import inputs
from city.models.exported import Exported
from city.models.model import Model
from city.models.predictions import answers
from city.serving.versions import Versions
from city.settings import Settings
from city.stack.worker import Worker, describe
from city.streaming.records import KafkaMessage
from city.streaming.topic_reader import TopicReader

log = logging.getLogger(__name__)

TICK_SECONDS = 0.5
FEED = "scores"
_BACK = 5_000  # so many messages before the end of each partition the reader starts
_FEED_KEPT = 200
_FEED_A_TICK = 5_000
_PREDICT_SECONDS = 2.0
_TIMEOUT_SECONDS = 2.0


class Delta(NamedTuple):
    """The changes at one moment (`at`, in milliseconds since the epoch), as JSON by layer."""

    sequence: int
    at: int
    fragments: dict[str, bytes]


class Live:
    """Reads the messages of the layers, and every half second passes the changes to `publish`."""

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
        self._feed: deque[Score] = deque(maxlen=_FEED_KEPT)
        self._fresh: list[Score] = []
        self.sequence = 0
        self.messages = 0
        self._lock = threading.Lock()
        self._last_snapshot = Delta(-1, 0, {})
        self.worker = Worker("live", self._run, expected=(OSError, KafkaException))
        self._publish: Callable[[Delta], None] = lambda delta: None
        self._readers: dict[str, FeatureReader] = {}
        self._topics = TopicReader(
            config.kafka,
            {*feeds, *(layer.topic for layer in layers)},
            f"city-live-{uuid.uuid4().hex}",
            self._start_offsets,
            {"auto.offset.reset": "latest", "fetch.wait.max.ms": 50},
            _TIMEOUT_SECONDS,
        )
        self._positions: dict[tuple[str, int], int] = {}
        """The next offset of each partition. After an error the next consumer continues there."""
        self._unreadable: str | None = None
        """The error of the last message that could not be read."""
        self._predicted_at = float("-inf")

    def start(self, publish: Callable[[Delta], None]) -> None:
        """Starts the worker. It calls `publish` with each delta, in its own thread."""
        self._publish = publish
        self.worker.start()

    def stop(self) -> None:
        """Stops the worker, and waits up to 10 s for it."""
        self.worker.stop(10)

    @property
    def error(self) -> str | None:
        """Why the live city is not up to date; None where it is."""
        return self.worker.last_error or self._topics.error

    def rows(self, layer: str) -> list[dict[str, Any]]:
        """A layer's rows, by column."""
        state = self.states[layer]
        with self._lock:
            return [dict(zip(state.layer.header, row, strict=True)) for row in state.rows.values()]

    def row(self, layer: str, key: str) -> dict[str, Any] | None:
        """The row of a key, by column; None where there is none."""
        state = self.states[layer]
        row = state.rows.get(key)
        return dict(zip(state.layer.header, row, strict=True)) if row else None

    def scores(self) -> list[Score]:
        """The models' scores of single events, the newest last."""
        with self._lock:
            return list(self._feed)

    def snapshot(self) -> Delta:
        """All rows of all layers, with the number of the last delta that they include."""
        with self._lock:
            if self._last_snapshot.sequence != self.sequence:
                fragments = {name: state.snapshot() for name, state in self.states.items()}
                fragments[FEED] = orjson.dumps(ScoreFeed(rows=list(self._feed)))
                self._last_snapshot = Delta(self.sequence, int(time.time() * 1000), fragments)
            return self._last_snapshot

    def _run(self, worker: Worker) -> None:
        self._topics.open()
        try:
            next_tick = time.monotonic() + TICK_SECONDS
            while not worker.stop_requested.is_set():
                self._topics.look_for_topics()
                read = self.messages
                while (left := next_tick - time.monotonic()) > 0 and not worker.stop_requested.is_set():
                    self._take_messages(self._topics.read(2_000, min(left, 0.1), worker.stop_requested))
                self._publish_changes()
                next_tick = max(next_tick + TICK_SECONDS, time.monotonic())
                worker.progress(self.messages - read)
        finally:
            self._topics.close()

    def _start_offsets(self, consumer: Consumer, topic: str, partitions: Sequence[int]) -> list[TopicPartition]:
        """The partitions with the offsets to start at.

        These are some messages before the end, or where the last consumer stopped.
        """
        back = _FEED_KEPT if topic in self._feeds else _BACK
        starts = []
        for number in partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_TIMEOUT_SECONDS)
            position = self._positions.get((topic, number), high - back)
            starts.append(TopicPartition(topic, number, max(low, position if position <= high else high - back)))
        return starts

    def _take_messages(self, messages: Sequence[KafkaMessage]) -> None:
        now_ms = time.time() * 1000
        with self._lock:
            for message in messages:
                self.messages += 1
                # Before the content is parsed: whatever error it causes, the message is not read again.
                topic = message.topic()
                self._positions[topic, message.partition()] = message.offset() + 1
                try:
                    self._take_content(topic, orjson.loads(message.value() or b""), now_ms)
                except Exception as error:  # anybody may write anything to the topic; the reader continues
                    log.debug("cannot decode a message of %s: %s", topic, error)
                    if self._unreadable is None:  # logged once: there may be thousands
                        log.warning("cannot decode a message of %s: %s", topic, describe(error))
                    self._unreadable = describe(error)

    def _take_content(self, topic: str, content: Message, now_ms: float) -> None:
        if topic in self._feeds:
            score = cast(Score, {"model": self._feeds[topic], **content})
            self._feed.append(score)
            self._fresh.append(score)
        elif (state := self._by_kind.get(content["kind"])) is not None and state.layer.topic == topic:
            state.take(state.layer.row(content), now_ms)

    def _publish_changes(self) -> None:
        """Predicts where it is due, and publishes a delta."""
        if time.monotonic() > self._predicted_at + _PREDICT_SECONDS:
            self._predicted_at = time.monotonic()
            try:
                for state in self.states.values():
                    self._predict_rows(state)
                self.worker.note(None)
            except Exception as error:  # a locked file, or a model: the rows are published without new predictions
                if self.worker.last_error is None:
                    log.exception("cannot compute the live predictions")
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
                fragments[FEED] = orjson.dumps(ScoreFeed(rows=self._fresh[-_FEED_A_TICK:]))
                self._fresh = []
            # A delta without changes is published too, so that clients know that they are up to date.
            self.sequence += 1
            changes = Delta(self.sequence, int(now_ms), fragments)
        self._publish(changes)

    def _predict_rows(self, state: State) -> None:
        """Sets the predictions of the champions for the layer's keys, from their present online features."""
        predictions = state.layer.predictions
        keys = list(state.rows)
        if not predictions or not keys:
            return
        columns: list[list[Prediction]] = []
        for name in predictions.values():
            model, served = self._models.get(name), None
            if model is not None:
                served = self._versions.champion(name)
            if model is None or served is None:
                columns.append([None] * len(keys))
                continue
            reader = self._readers.get(name)
            if reader is None:
                reader = self._readers[name] = FeatureReader(online_store(self._config), model.online)
            features = reader.read([{model.view.entities[0]: key} for key in keys])
            columns.append(_compute_predictions(model, served.exported, features))
        with self._lock:
            for key, values in zip(keys, zip(*columns, strict=True), strict=True):
                state.set_predictions(key, values)


def _compute_predictions(
    model: Model, exported: Exported, features: Sequence[Mapping[str, object]]
) -> list[Prediction]:
    """One prediction per row of features: a number rounded to a tenth, or a class. None without fresh features."""
    import polars as pl

    usable = [row for row in features if not is_unknown(row)]
    if not usable:
        return [None] * len(features)
    frame = pl.DataFrame(usable, infer_schema_length=None)
    output = exported.predict(inputs(model, frame))
    predicted = answers(model, exported.calibration, output, frame)["prediction"].to_list()
    values = iter([round(float(value), 1) for value in predicted] if model.kind == "regression" else predicted)
    return [None if is_unknown(row) else next(values) for row in features]
