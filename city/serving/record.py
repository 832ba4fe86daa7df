"""The prediction store: every answer, off the request's path, to `served/<model>`; and what came of them, to
`outcomes/<model>`."""

import logging
import os
import threading
import time
from array import array
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from deltalake import write_deltalake

from city.lake import locate
from city.lake.tables import open_table
from city.models.model import Model
from city.serving.answer import Answer
from city.settings import Settings
from city.tables.model import DAY

log = logging.getLogger(__name__)

SERVED, OUTCOMES = "served", "outcomes"
_WRITE_SECONDS = 2.0
_WRITE_ROWS = 20_000
_PART_ROWS = 200
"""Made in one go, in which no request can be answered."""
_MOST_WAITING = 200_000
_REMEMBERED = 100_000
_LAST_SECONDS = 15.0
_TIME = pl.Datetime("us", "UTC")


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


# Of plain values only: the garbage collector looks through a hundred thousand of anything else.
_Recent = tuple[str, int, str, bytes]


class Outcome(NamedTuple):
    id: str
    at: float
    model: str
    version: int
    role: str
    caller: str
    outcome: str
    loss: float


_WHICH = {"id": pl.String(), "at": _TIME, "version": pl.Int64(), "role": pl.String(), "caller": pl.String()}
_SERVED = _WHICH | {
    "entity": pl.String(),
    "prediction": pl.String(),
    "confidence": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "output": pl.List(pl.Float64()),
    "inputs": pl.String(),
    "latency_ms": pl.Float64(),
    "cached": pl.Boolean(),
    DAY: pl.Date(),
}
_OUTCOMES = _WHICH | {"outcome": pl.String(), "loss": pl.Float64(), DAY: pl.Date()}
_SCHEMAS = {SERVED: _SERVED, OUTCOMES: _OUTCOMES}


class Full(RuntimeError):
    """More waits to be recorded than fits: what cannot be recorded is not answered either."""


class PredictionStore:
    """A thread writes what waits, every few seconds. A lake that is away is tried again, and nothing is let go;
    `stop` writes all there is."""

    def __init__(self, config: Settings, models: Mapping[str, Model]) -> None:
        self._config, self._models = config, models
        self._waiting: dict[tuple[str, str], deque[Entry | Outcome]] = {
            (layer, name): deque() for name in models for layer in (SERVED, OUTCOMES)
        }
        self._frames: dict[str, deque[pl.DataFrame]] = {name: deque() for name in models}
        self._recent: OrderedDict[str, _Recent] = OrderedDict()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-store", daemon=True)
        self.written = 0
        self.error: str | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float = 20.0) -> None:
        """Waits until all is written. What a lake that stays away did not take is said in the log."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        if left := self.waiting:
            log.error("%d predictions could not be recorded: %s", left, self.error)

    @property
    def waiting(self) -> int:
        frames = sum(frame.height for frames in self._frames.values() for frame in frames)
        return sum(map(len, self._waiting.values())) + frames

    def add(self, entry: Entry) -> None:
        """Raises Full."""
        waiting = self._waiting[SERVED, entry.model]
        if len(waiting) >= _MOST_WAITING:
            raise Full(f"{_MOST_WAITING:,} predictions wait to be recorded: {self.error or 'the lake is slow'}")
        waiting.append(entry)
        self._recent[entry.id] = (entry.model, entry.version, entry.role, entry.output)
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)

    def add_frame(self, model: str, rows: pl.DataFrame) -> None:
        """A whole batch of answers, of the table's columns but the day. Raises Full."""
        if self.waiting > _MOST_WAITING:
            raise Full(f"{_MOST_WAITING:,} predictions wait to be recorded: {self.error or 'the lake is slow'}")
        self._frames[model].append(rows)

    def recent(self, number: str) -> tuple[str, int, str, list[float]] | None:
        """Model, version, role and output of a prediction of the last hundred thousand."""
        found = self._recent.get(number)
        return found and (*found[:3], array("d", found[3]).tolist())

    def judged(self, outcome: Outcome) -> None:
        self._waiting[OUTCOMES, outcome.model].append(outcome)

    def _run(self) -> None:
        if hasattr(os, "setpriority"):  # whoever asks comes first; what this thread starts gives way with it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        wait = _WRITE_SECONDS
        while not self._stop.wait(wait):
            wait = _WRITE_SECONDS if self._write() else min(wait * 2, 30.0)
        ends = time.monotonic() + _LAST_SECONDS
        while not self._write() and time.monotonic() < ends:
            time.sleep(0.5)

    def _write(self) -> bool:
        """Takes from a queue only what is committed. Whether all was."""
        try:
            for (layer, model), waiting in self._waiting.items():
                while waiting:
                    some = list(islice(waiting, _WRITE_ROWS))  # in one step: others append meanwhile
                    self._commit(layer, model, some)
                    for _ in some:
                        waiting.popleft()
                    self.written += len(some)
            for model, frames in self._frames.items():
                while frames:
                    self._append(SERVED, model, frames[0])
                    self.written += frames.popleft().height
        except Exception as error:  # whatever a file system or an object store can raise
            if self.error is None:
                log.error("predictions cannot be recorded: %s", error)
            self.error = str(error).partition("\n")[0]
            return False
        self.error = None
        return True

    def _commit(self, layer: str, model: str, entries: list[Any]) -> None:
        inputs, schema = self._models[model].inputs, {**_SCHEMAS[layer], "at": pl.Float64()}
        parts = []
        for first in range(0, len(entries), _PART_ROWS):
            part = entries[first : first + _PART_ROWS]
            columns = _served(part, inputs) if layer == SERVED else _outcomes(part)
            parts.append(pl.DataFrame(columns, schema=schema))
            time.sleep(0)
        self._append(layer, model, pl.concat(parts).with_columns(_when(pl.col("at"))))

    def _append(self, layer: str, model: str, rows: pl.DataFrame) -> None:
        schema = _SCHEMAS[layer]
        table = open_table(locate(self._config.lake, layer, model), schema, [DAY])
        whole = rows.with_columns(pl.col("at").dt.date().alias(DAY)).select(
            pl.col(n).cast(t) for n, t in schema.items()
        )
        write_deltalake(table, whole, mode="append")


def _when(seconds: pl.Expr) -> pl.Expr:
    return pl.from_epoch((seconds * 1e6).cast(pl.Int64), "us").dt.replace_time_zone("UTC")


def _served(entries: Sequence[Entry], inputs: tuple[str, ...]) -> dict[str, Any]:
    """By column: rows of a few thousand a second are cheaper so."""
    answers = [entry.answer for entry in entries]
    return {
        "id": [e.id for e in entries],
        "at": [e.at for e in entries],
        "version": [e.version for e in entries],
        "role": [e.role for e in entries],
        "caller": [e.caller for e in entries],
        "entity": [e.entity for e in entries],
        "prediction": [p if isinstance(p := a.prediction, str) else f"{p:.6g}" for a in answers],
        "confidence": [a.confidence for a in answers],
        "low": [a.low for a in answers],
        "high": [a.high for a in answers],
        "output": _wide([e.output for e in entries], np.float64),
        "inputs": _as_json([e.row for e in entries], inputs),
        "latency_ms": [e.latency_ms for e in entries],
        "cached": [e.cached for e in entries],
        DAY: [None] * len(entries),
    }


def _wide(rows: Sequence[bytes], kind: type[np.floating[Any]]) -> pl.Series:
    """Numbers by row, as lists; the rows are of one width."""
    numbers = np.frombuffer(b"".join(rows), kind).reshape(len(rows), -1)
    return pl.Series(numbers).arr.to_list()


def _as_json(rows: Sequence[bytes], names: tuple[str, ...]) -> pl.Series:
    numbers = np.frombuffer(b"".join(rows), np.float32).reshape(len(rows), -1)
    frame = pl.from_numpy(numbers, list(names)).with_columns(pl.all().fill_nan(None))
    return frame.select(pl.struct(pl.all()).struct.json_encode()).to_series()


def _outcomes(entries: Sequence[Outcome]) -> dict[str, Any]:
    return {name: [getattr(e, name) for e in entries] for name in _OUTCOMES if name != DAY} | {
        DAY: [None] * len(entries)
    }
