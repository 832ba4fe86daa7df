"""The prediction store. It writes every answer to `served/<model>` and every outcome to `outcomes/<model>`, off the
path of requests."""

import logging
import pickle
import threading
import time
import uuid
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import count, islice
from typing import Any, NamedTuple

import polars as pl

from city.models.model import Model
from city.serving.answer import Answer
from city.serving.fifo_cache import FifoCache
from city.serving.journal import Journal
from city.serving.record_queries import Outcome, Prediction, find_outcomes, find_predictions
from city.serving.recorder import OUTCOMES, SERVED, Batch, Recorder, RecorderError
from city.serving.roles import BACKGROUND_ROLES
from city.settings import Settings
from city.stack.worker import Worker

log = logging.getLogger(__name__)

_WRITE_SECONDS = 2.0
_WRITE_ROWS = 20_000
_PART_ROWS = 200
"""Number of rows that are packed at a time. No request is answered meanwhile."""
_MOST_WAITING = 200_000
_LAST_SECONDS = 15.0


class PredictionRecord(NamedTuple):
    """The record of one answer. `at` is the time of the answer, in seconds since the epoch. `entity` is the entity of
    the request as JSON, or None for a request with features."""

    id: str
    at: float
    model: str
    version: int
    role: str
    caller: str
    entity: str | None
    row: bytes
    """The inputs as bytes (float32). `output` has the model's output as bytes (float64). Bytes are cheaper than lists
    at thousands of answers a second."""
    answer: Answer
    output: bytes
    latency_ms: float
    """From the request's arrival to the answer, in milliseconds."""
    cached: bool
    experiment: str | None = None
    """The id of the trial that the answer belongs to."""


_RecentRow = tuple[str, int, str, str | None, bytes, float | str]


class QueueFull(RuntimeError):
    """The queue of unwritten records is full. A request whose answer cannot be recorded is not answered either."""


class _InFlight(NamedTuple):
    """A batch that is being written, its queue, the number of the queue's items in it, and its number of rows."""

    batch: Batch
    queue: deque[Any]
    items: int
    rows: int


class PredictionStore:
    """Queues answers and outcomes, and writes them to the lake.

    A worker packs the queues every few seconds for a process that writes them. While the lake is unavailable, writes
    are retried and nothing is dropped. `stop` writes the rest. Outcomes are in a journal from their acceptance until
    they are in the lake. `recover` writes the outcomes of a killed process to the lake, once.
    """

    def __init__(self, config: Settings, models: Mapping[str, Model]) -> None:
        self._models, self._recorder, self._lake = models, Recorder(config.lake), config.lake
        self._waiting: dict[tuple[str, str], deque[PredictionRecord | Outcome]] = {
            (layer, name): deque() for name in models for layer in (SERVED, OUTCOMES)
        }
        self._frames: dict[str, deque[pl.DataFrame]] = {name: deque() for name in models}
        self._recent, self._background = FifoCache[_RecentRow](), FifoCache[_RecentRow]()
        """`_recent` has the answers that callers got, `_background` those of shadow and control to the same ids."""
        self._journal, self._journaling = Journal(config.home / "serving"), threading.Lock()
        self._recovered = False
        self._journaled: list[Outcome] | None = None
        self._app, self._numbers = f"server/{uuid.uuid4()}", count(1)
        self._in_flight: _InFlight | None = None
        self.worker = Worker("prediction store", self._run)
        self.written_rows = 0
        self.error: str | None = None

    def start(self) -> None:
        """Starts the worker that writes the queues."""
        self.worker.start()

    def stop(self, seconds: float = 20.0) -> None:
        """Stops the worker, for which it waits `seconds`, and writes the queues. If the lake stays unavailable, logs
        the number of records that it did not take."""
        # The last writes take place here and not in the worker, which may just be waiting for its next call.
        if self.worker.stop(seconds):
            deadline = time.monotonic() + _LAST_SECONDS
            while not (self._write() and not self.waiting_rows) and time.monotonic() < deadline:
                time.sleep(0.1)
            self._recorder.close()
        if remaining := self.waiting_rows:
            log.error("%d predictions could not be recorded: %s", remaining, self.error)

    @property
    def waiting_rows(self) -> int:
        """The number of answers and outcomes that are not written yet."""
        # The list is a copy, because the worker removes frames meanwhile.
        frames = sum(frame.height for frames in self._frames.values() for frame in list(frames))
        return sum(map(len, self._waiting.values())) + frames

    def add(self, record: PredictionRecord) -> None:
        """Queues an answer. Raises QueueFull when too many answers wait."""
        waiting = self._waiting[SERVED, record.model]
        if len(waiting) >= _MOST_WAITING:
            raise QueueFull(f"{_MOST_WAITING:,} predictions wait to be recorded: {self.error or 'the lake is slow'}")
        waiting.append(record)
        recent = self._background if record.role in BACKGROUND_ROLES else self._recent
        prediction = record.answer.prediction
        recent.put(record.id, (record.model, record.version, record.role, record.experiment, record.output, prediction))

    def add_frame(self, model: str, rows: pl.DataFrame) -> None:
        """Queues a batch of answers, a frame with all columns of the table except the day. Raises QueueFull when too
        many answers wait."""
        if self.waiting_rows > _MOST_WAITING:
            raise QueueFull(f"{_MOST_WAITING:,} predictions wait to be recorded: {self.error or 'the lake is slow'}")
        self._frames[model].append(rows)

    def recent(self, prediction_id: str) -> list[Prediction]:
        """Returns the predictions with an id if it is among the last hundred thousand. The caller's answer is first."""
        rows = (self._recent.get(prediction_id), self._background.get(prediction_id))
        if rows[0] is None:
            return []
        return [Prediction(*row[:4], array("d", row[4]).tolist(), row[5]) for row in rows if row]

    def forget(self, prediction_id: str) -> None:
        """Removes an id from memory. Later calls find it in the lake only."""
        self._recent.forget(prediction_id)

    def find(self, prediction_id: str) -> tuple[list[Prediction], list[Outcome]]:
        """Finds the predictions with an id, the caller's answer first, and their outcomes, in the queues and in the
        lake. Blocks. It can be called from any thread. Raises `city.serving.feedback.LAKE_ERRORS` while the lake is
        unavailable."""
        # The queues are searched first, because a record leaves its queue only after it is in the lake.
        predictions = self._find_waiting(prediction_id)
        if all(prediction.role in BACKGROUND_ROLES for prediction in predictions):
            written = find_predictions(self._lake, self._models, prediction_id)
            predictions = list({(p.model, p.version): p for p in (*written, *predictions)}.values())
        predictions.sort(key=lambda prediction: prediction.role in BACKGROUND_ROLES)
        if not predictions or predictions[0].role in BACKGROUND_ROLES:
            return [], []
        model = predictions[0].model
        waiting: list[Outcome] = [o for o in list(self._waiting[OUTCOMES, model]) if o.id == prediction_id]  # type: ignore[misc]
        return predictions, [*waiting, *find_outcomes(self._lake, model, [prediction_id])]

    def add_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Queues the outcomes of one id's predictions. They are on disk when this returns. Raises QueueFull when too
        many outcomes wait, and OSError where the journal cannot be written."""
        waiting = self._waiting[OUTCOMES, outcomes[0].model]
        if len(waiting) >= _MOST_WAITING:
            raise QueueFull(f"{_MOST_WAITING:,} outcomes wait to be recorded: {self.error or 'the lake is slow'}")
        with self._journaling:
            self._journal.append(outcomes)
            waiting.extend(outcomes)

    def recover(self) -> list[Outcome]:
        """Returns the outcomes in the journal of an earlier process, and queues those that are not in the lake. Blocks.
        Raises `city.serving.feedback.LAKE_ERRORS` while the lake is unavailable; it can then be called again."""
        if self._journaled is not None:
            return self._journaled
        # An outcome is in two files where a process was killed while it moved the outcome from one to the other.
        journaled = list(dict.fromkeys(Outcome(*row) for line in self._journal.lines() for row in line))
        undeclared = [outcome for outcome in journaled if outcome.model not in self._models]
        if names := sorted({outcome.model for outcome in undeclared}):
            log.warning("outcomes of models that are not declared wait until they are: %s", ", ".join(names))
        missing: dict[str, list[Outcome]] = {}
        for model in self._models:
            outcomes = [outcome for outcome in journaled if outcome.model == model]
            written = {(o.id, o.version) for o in find_outcomes(self._lake, model, {o.id for o in outcomes})}
            missing[model] = [o for o in outcomes if (o.id, o.version) not in written]
        with self._journaling:
            self._journal.keep_undeclared(undeclared)
        # Outcomes are queued only after all reads, so that a second call after an error queues nothing twice.
        for model, unwritten in missing.items():
            self._waiting[OUTCOMES, model].extend(unwritten)
        self._recovered, self._journaled = True, journaled
        return journaled

    def _find_waiting(self, prediction_id: str) -> list[Prediction]:
        for (layer, model), waiting in self._waiting.items():
            if layer == SERVED:
                records: list[PredictionRecord] = [r for r in list(waiting) if r.id == prediction_id]  # type: ignore[misc]
                if records:
                    return [
                        Prediction(
                            model, r.version, r.role, r.experiment, array("d", r.output).tolist(), r.answer.prediction
                        )
                        for r in records
                    ]
        for model, frames in self._frames.items():
            for frame in list(frames):
                rows = frame.filter(pl.col("id") == prediction_id).select(Prediction._fields[1:])
                if rows.height:
                    return [Prediction(model, *row) for row in rows.iter_rows()]
        return []

    def _run(self, worker: Worker) -> None:
        wait = _WRITE_SECONDS
        while not worker.stop_requested.wait(wait):
            before = self.written_rows
            wait = _WRITE_SECONDS if self._write() else min(wait * 2, 30.0)
            worker.note(self.error)
            worker.progress(self.written_rows - before)

    def _write(self) -> bool:
        """Writes the records that wait at the time of the call. Later records wait for the next round, or there would
        be a commit for every few rows. Returns whether all were written."""
        closes_round = self._recovered
        try:
            if closes_round:
                with self._journaling:
                    self._journal.close_round()
            self._write_in_flight()
            for (layer, model), waiting in self._waiting.items():
                remaining = len(waiting)
                while remaining:
                    # The list is made in one step, because other threads append meanwhile.
                    records = list(islice(waiting, min(remaining, _WRITE_ROWS)))
                    remaining -= len(records)
                    self._in_flight = _InFlight(
                        self._make_batch(layer, model, _pack(records)), waiting, len(records), len(records)
                    )
                    self._write_in_flight()
            for model, frames in self._frames.items():
                for _ in range(len(frames)):
                    batch = self._make_batch(SERVED, model, [_to_arrow(frames[0])], arrow=True)
                    self._in_flight = _InFlight(batch, frames, 1, frames[0].height)
                    self._write_in_flight()
        except RecorderError as error:
            if self.error is None:
                log.error("predictions cannot be recorded: %s", error)
            self.error = str(error)
            return False
        if closes_round:
            self._journal.delete_closed_round()
        self.error = None
        return True

    def _write_in_flight(self) -> None:
        """Writes the batch in flight, if there is one. Items leave their queue only after the commit. A batch that
        failed is written again unchanged, so that it is in the table once even if the first attempt did commit. Raises
        RecorderError."""
        if self._in_flight is None:
            return
        batch, queue, items, rows = self._in_flight
        self._recorder.write(batch)
        self._in_flight = None
        for _ in range(items):
            queue.popleft()
        self.written_rows += rows

    def _make_batch(self, layer: str, model: str, parts: list[bytes], arrow: bool = False) -> Batch:
        return Batch(layer, model, self._models[model].inputs, self._app, next(self._numbers), parts, arrow)


def _pack(records: Sequence[Any]) -> list[bytes]:
    """Pickles records for the recorder, column by column, because plain values of one type are pickled fastest."""
    parts = []
    for first in range(0, len(records), _PART_ROWS):
        part = records[first : first + _PART_ROWS]
        columns = dict(zip(part[0]._fields, zip(*part, strict=True), strict=True))
        del columns["model"]
        if "answer" in columns:
            values = zip(*columns.pop("answer"), strict=True)
            answers = dict(zip(Answer._fields, values, strict=True)) | {"output": columns["output"]}
            columns = columns | answers
            columns["inputs"] = columns.pop("row")
        parts.append(pickle.dumps(columns, protocol=5))
        time.sleep(0)
    return parts


def _to_arrow(frame: pl.DataFrame) -> bytes:
    content = BytesIO()
    frame.write_ipc(content)
    return content.getvalue()
