"""The prediction store: every answer, off the request's path, to `served/<model>`; and what came of them, to
`outcomes/<model>`."""

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
from city.serving.journal import Journal
from city.serving.recorded import Outcome, Prediction, find_outcomes, find_predictions
from city.serving.recorder import OUTCOMES, SERVED, Batch, Recorder, RecorderError
from city.serving.remembered import Remembered
from city.serving.trial import BESIDE
from city.settings import Settings
from city.stack.worker import Worker

log = logging.getLogger(__name__)

_WRITE_SECONDS = 2.0
_WRITE_ROWS = 20_000
_PART_ROWS = 200
"""Packed in one go, in which no request can be answered."""
_MOST_WAITING = 200_000
_LAST_SECONDS = 15.0


class Entry(NamedTuple):
    """One answer. `at` is when it was given, in seconds; `entity` whom it is about, as JSON, where that is known."""

    id: str
    at: float
    model: str
    version: int
    role: str
    caller: str
    entity: str | None
    row: bytes
    """The inputs (float32), and below the model's numbers (float64): thousands a second are cheaper as they are."""
    answer: Answer
    output: bytes
    latency_ms: float
    cached: bool
    experiment: str | None = None
    """The trial that it is part of."""


_Recent = tuple[str, int, str, str | None, bytes, float | str]


class Full(RuntimeError):
    """More waits to be recorded than fits: what cannot be recorded is not answered either."""


class _UnderWay(NamedTuple):
    """A batch, the queue that it is of, how many of that it has, and its rows."""

    batch: Batch
    queue: deque[Any]
    items: int
    rows: int


class PredictionStore:
    """A worker packs what waits, every few seconds, for a process that writes it. A lake that is away is tried again,
    and nothing is let go; `stop` writes all there is. Outcomes are in a journal from the moment they are taken until
    they are in the lake: `recover` gives those of a killed process to the lake again, once."""

    def __init__(self, config: Settings, models: Mapping[str, Model]) -> None:
        self._models, self._recorder, self._lake = models, Recorder(config.lake), config.lake
        self._waiting: dict[tuple[str, str], deque[Entry | Outcome]] = {
            (layer, name): deque() for name in models for layer in (SERVED, OUTCOMES)
        }
        self._frames: dict[str, deque[pl.DataFrame]] = {name: deque() for name in models}
        self._recent, self._beside = Remembered[_Recent](), Remembered[_Recent]()
        """Of the same ids, what another version said that nobody was given."""
        self._journal, self._journaling = Journal(config.home / "serving"), threading.Lock()
        self._recovered = False
        self._found: list[Outcome] | None = None
        self._app, self._numbers = f"server/{uuid.uuid4()}", count(1)
        self._under_way: _UnderWay | None = None
        self.worker = Worker("prediction store", self._run)
        self.written = 0
        self.error: str | None = None

    def start(self) -> None:
        self.worker.start()

    def stop(self, seconds: float = 20.0) -> None:
        """Waits until all is written. What a lake that stays away did not take is said in the log."""
        if self.worker.stop(seconds):  # here, and not in its body: that may just be waiting to be called again
            ends = time.monotonic() + _LAST_SECONDS
            while not (self._write() and not self.waiting) and time.monotonic() < ends:
                time.sleep(0.1)
            self._recorder.close()
        if left := self.waiting:
            log.error("%d predictions could not be recorded: %s", left, self.error)

    @property
    def waiting(self) -> int:
        # A copy: the worker takes some away meanwhile.
        frames = sum(frame.height for frames in self._frames.values() for frame in list(frames))
        return sum(map(len, self._waiting.values())) + frames

    def add(self, entry: Entry) -> None:
        """Raises Full."""
        waiting = self._waiting[SERVED, entry.model]
        if len(waiting) >= _MOST_WAITING:
            raise Full(f"{_MOST_WAITING:,} predictions wait to be recorded: {self.error or 'the lake is slow'}")
        waiting.append(entry)
        recent = self._beside if entry.role in BESIDE else self._recent
        said = entry.answer.prediction
        recent.put(entry.id, (entry.model, entry.version, entry.role, entry.experiment, entry.output, said))

    def add_frame(self, model: str, rows: pl.DataFrame) -> None:
        """A whole batch of answers, of the table's columns but the day. Raises Full."""
        if self.waiting > _MOST_WAITING:
            raise Full(f"{_MOST_WAITING:,} predictions wait to be recorded: {self.error or 'the lake is slow'}")
        self._frames[model].append(rows)

    def recent(self, number: str) -> list[Prediction]:
        """What was predicted under an id of the last hundred thousand, the answer first."""
        kept = (self._recent.get(number), self._beside.get(number))
        if kept[0] is None:
            return []
        return [Prediction(*found[:4], array("d", found[4]).tolist(), found[5]) for found in kept if found]

    def forget(self, number: str) -> None:
        """It is looked for in the lake from now on."""
        self._recent.forget(number)

    def find(self, number: str) -> tuple[list[Prediction], list[Outcome]]:
        """What was predicted under an id, the answer first, and what came of it: of what waits, and of the lake.
        Blocking; callable from any thread. Raises what a lake that is away raises."""
        # What waits first: it leaves its queue after it is in the lake.
        predictions = self._find_waiting(number)
        if all(prediction.role in BESIDE for prediction in predictions):
            written = find_predictions(self._lake, self._models, number)
            predictions = list({(p.model, p.version): p for p in (*written, *predictions)}.values())
        predictions.sort(key=lambda prediction: prediction.role in BESIDE)
        if not predictions or predictions[0].role in BESIDE:
            return [], []
        model = predictions[0].model
        waiting: list[Outcome] = [o for o in list(self._waiting[OUTCOMES, model]) if o.id == number]  # type: ignore[misc]
        return predictions, [*waiting, *find_outcomes(self._lake, model, [number])]

    def judged(self, outcomes: Sequence[Outcome]) -> None:
        """Takes what came of one id's predictions; it is on disk when this returns. Raises Full, and OSError."""
        waiting = self._waiting[OUTCOMES, outcomes[0].model]
        if len(waiting) >= _MOST_WAITING:
            raise Full(f"{_MOST_WAITING:,} outcomes wait to be recorded: {self.error or 'the lake is slow'}")
        with self._journaling:
            self._journal.append(outcomes)
            waiting.extend(outcomes)

    def recover(self) -> list[Outcome]:
        """The outcomes that a process before took and may not have written; those that are not in the lake wait again.
        Blocking. Raises what a lake that is away raises."""
        if self._found is not None:
            return self._found
        found = [Outcome(*row) for line in self._journal.lines() for row in line]
        if unknown := {outcome.model for outcome in found} - self._models.keys():
            log.warning("outcomes of models that are not declared any more are left out: %s", sorted(unknown))
        missing: dict[str, list[Outcome]] = {}
        for model in self._models:
            of = [outcome for outcome in found if outcome.model == model]
            written = {(o.id, o.version) for o in find_outcomes(self._lake, model, {o.id for o in of})}
            missing[model] = [o for o in of if (o.id, o.version) not in written]
        # Only now that all was read: who calls again after an error must not queue anything twice.
        for model, outcomes in missing.items():
            self._waiting[OUTCOMES, model].extend(outcomes)
        # A journal with what cannot be written is kept, for a server that knows the model.
        self._recovered, self._found = not unknown, found
        return found

    def _find_waiting(self, number: str) -> list[Prediction]:
        for (layer, model), waiting in self._waiting.items():
            if layer == SERVED:
                entries: list[Entry] = [e for e in list(waiting) if e.id == number]  # type: ignore[misc]
                if entries:
                    return [
                        Prediction(
                            model, e.version, e.role, e.experiment, array("d", e.output).tolist(), e.answer.prediction
                        )
                        for e in entries
                    ]
        for model, frames in self._frames.items():
            for frame in list(frames):
                rows = frame.filter(pl.col("id") == number).select(Prediction._fields[1:])
                if rows.height:
                    return [Prediction(model, *row) for row in rows.iter_rows()]
        return []

    def _run(self, worker: Worker) -> None:
        wait = _WRITE_SECONDS
        while not worker.stop_requested.wait(wait):
            before = self.written
            wait = _WRITE_SECONDS if self._write() else min(wait * 2, 30.0)
            worker.note(self.error)
            worker.progress(self.written - before)

    def _write(self) -> bool:
        """What waits now; what comes meanwhile has time until the next round, else there would be a commit for every
        few rows. Whether all was written."""
        journaled = self._recovered
        try:
            if journaled:
                with self._journaling:
                    self._journal.close_round()
            self._finish()
            for (layer, model), waiting in self._waiting.items():
                left = len(waiting)
                while left:
                    some = list(islice(waiting, min(left, _WRITE_ROWS)))  # in one step: others append meanwhile
                    left -= len(some)
                    self._under_way = _UnderWay(self._batch(layer, model, _packed(some)), waiting, len(some), len(some))
                    self._finish()
            for model, frames in self._frames.items():
                for _ in range(len(frames)):
                    batch = self._batch(SERVED, model, [_as_arrow(frames[0])], arrow=True)
                    self._under_way = _UnderWay(batch, frames, 1, frames[0].height)
                    self._finish()
        except RecorderError as error:
            if self.error is None:
                log.error("predictions cannot be recorded: %s", error)
            self.error = str(error)
            return False
        if journaled:
            self._journal.settle()
        self.error = None
        return True

    def _finish(self) -> None:
        """Writes the batch that is under way. Only what is committed leaves its queue; what was not is given again as
        it is, so that it is written once, whatever became of it the first time. Raises RecorderError."""
        if self._under_way is None:
            return
        batch, queue, items, rows = self._under_way
        self._recorder.write(batch)
        self._under_way = None
        for _ in range(items):
            queue.popleft()
        self.written += rows

    def _batch(self, layer: str, model: str, parts: list[bytes], arrow: bool = False) -> Batch:
        return Batch(layer, model, self._models[model].inputs, self._app, next(self._numbers), parts, arrow)


def _packed(entries: Sequence[Any]) -> list[bytes]:
    """As the recorder takes them: by column, for plain values of one kind are packed soonest."""
    parts = []
    for first in range(0, len(entries), _PART_ROWS):
        part = entries[first : first + _PART_ROWS]
        columns = dict(zip(part[0]._fields, zip(*part, strict=True), strict=True))
        del columns["model"]
        if "answer" in columns:
            said = zip(*columns.pop("answer"), strict=True)
            told = dict(zip(Answer._fields, said, strict=True)) | {"output": columns["output"]}
            columns = columns | told
            columns["inputs"] = columns.pop("row")
        parts.append(pickle.dumps(columns, protocol=5))
        time.sleep(0)
    return parts


def _as_arrow(frame: pl.DataFrame) -> bytes:
    content = BytesIO()
    frame.write_ipc(content)
    return content.getvalue()
