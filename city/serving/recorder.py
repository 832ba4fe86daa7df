"""The process that commits the prediction record. To make columns of thousands of answers a second takes its time, and
Python has one for each process: in the server's own, requests would wait for it."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import orjson
import polars as pl
from deltalake import CommitProperties, Transaction, write_deltalake

from city.lake import locate
from city.lake.tables import open_table
from city.tables.model import DAY

SERVED, OUTCOMES = "served", "outcomes"
_TIME = pl.Datetime("us", "UTC")
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
    "experiment": pl.String(),
    DAY: pl.Date(),
}
_OUTCOMES = _WHICH | {
    "outcome": pl.String(),
    "loss": pl.Float64(),
    "experiment": pl.String(),
    "most_gain": pl.Float64(),
    DAY: pl.Date(),
}
SCHEMAS: dict[str, dict[str, pl.DataType]] = {SERVED: _SERVED, OUTCOMES: _OUTCOMES}
_ADDED = frozenset({"experiment", "most_gain"})
"""Columns that tables of before have not."""
_NICE = 5  # whoever asks comes first


class RecorderError(RuntimeError):
    """A batch was not committed, or nobody knows whether it was: it may be given again."""


class Batch(NamedTuple):
    """Rows of one table. `parts` are columns by name, pickled, or frames as Arrow files; `number` is greater than that
    of every batch before it of the same `app`: one that is given twice is written once."""

    layer: str
    model: str
    inputs: tuple[str, ...]
    app: str
    number: int
    parts: Sequence[bytes]
    arrow: bool = False


class Recorder:
    """The process, from the server's side. It is started by the first batch, and again where it has ended."""

    def __init__(self, lake: Path) -> None:
        self._lake = lake
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def write(self, batch: Batch) -> None:
        """Returns when it is committed. Raises RecorderError."""
        process = self._process
        if process is None or process.poll() is not None:
            argv = [sys.executable, "-m", "city.serving.recorder", str(self._lake)]
            try:
                process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            except OSError as problem:  # a machine without room for one more; tried again, as all else is
                raise RecorderError(f"the process that records predictions cannot start: {problem}") from problem
            self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        head = batch._asdict() | {"parts": [len(part) for part in batch.parts]}
        try:
            process.stdin.write(orjson.dumps(head) + b"\n")
            for part in batch.parts:
                process.stdin.write(part)
            process.stdin.flush()
            said = process.stdout.readline()
        except OSError:
            said = b""
        if not said:
            process.kill()
            raise RecorderError(f"the process that records predictions ended with code {process.wait()}")
        if error := orjson.loads(said)["error"]:
            raise RecorderError(error)

    def close(self) -> None:
        """Ends the process, which ends by itself too when the server is gone."""
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def run(lake: Path, source: BinaryIO, answers: BinaryIO) -> None:
    """Commits what comes, until nothing more does."""
    while line := source.readline():
        head = orjson.loads(line)
        parts = [source.read(size) for size in head["parts"]]
        if [len(part) for part in parts] != head["parts"]:
            return  # the server was killed in the middle of it
        batch = Batch(**head | {"parts": parts, "inputs": tuple(head["inputs"])})
        try:
            commit(lake, batch)
            error = None
        except Exception as problem:  # whatever a file system or an object store can raise
            error = str(problem).partition("\n")[0] or type(problem).__name__
        answers.write(orjson.dumps({"error": error}) + b"\n")
        answers.flush()


def commit(lake: Path, batch: Batch) -> None:
    schema = SCHEMAS[batch.layer]
    table = open_table(locate(lake, batch.layer, batch.model), schema, [DAY], may_add=_ADDED)
    written = table.transaction_version(batch.app)
    if written is not None and written >= batch.number:
        return
    frames = [pl.read_ipc(BytesIO(part)) if batch.arrow else _frame(batch, pickle.loads(part)) for part in batch.parts]
    rows = pl.concat(frames).with_columns(pl.col("at").dt.date().alias(DAY))
    whole = rows.select(pl.col(name).cast(kind) for name, kind in schema.items())
    mark = CommitProperties(app_transactions=[Transaction(batch.app, batch.number)])
    write_deltalake(table, whole, mode="append", commit_properties=mark)


def _frame(batch: Batch, columns: dict[str, Any]) -> pl.DataFrame:
    """Of columns as the server has them: times in seconds, numbers as bytes, predictions as they are."""
    if batch.layer == SERVED:
        columns |= {
            "prediction": [p if isinstance(p, str) else f"{p:.6g}" for p in columns["prediction"]],
            "output": _wide(columns["output"], np.float64).arr.to_list(),
            "inputs": _as_json(columns["inputs"], batch.inputs),
        }
    made = {name: kind for name, kind in SCHEMAS[batch.layer].items() if name != DAY} | {"at": pl.Float64()}
    at = pl.from_epoch((pl.col("at") * 1e6).cast(pl.Int64), "us").dt.replace_time_zone("UTC")
    return pl.DataFrame(columns, schema=made).with_columns(at)


def _wide(rows: Sequence[bytes], kind: type[np.floating[Any]]) -> pl.Series:
    """Numbers by row; the rows are of one width."""
    return pl.Series(np.frombuffer(b"".join(rows), kind).reshape(len(rows), -1))


def _as_json(rows: Sequence[bytes], names: tuple[str, ...]) -> pl.Series:
    numbers = np.frombuffer(b"".join(rows), np.float32).reshape(len(rows), -1)
    frame = pl.from_numpy(numbers, list(names)).with_columns(pl.all().fill_nan(None))
    return frame.select(pl.struct(pl.all()).struct.json_encode()).to_series()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal; the server says when it is over
    os.nice(_NICE)
    told = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    run(Path(sys.argv[1]), sys.stdin.buffer, told)
