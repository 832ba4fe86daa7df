"""The process that commits the prediction record. Converting thousands of answers a second to columns takes processor
time. In the server's own process that work would hold Python's global lock, and requests would wait for it."""

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
    "threshold": pl.Float64(),
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
_ADDED = frozenset({"experiment", "most_gain", "threshold"})
"""Columns that tables of earlier releases lack."""
_NICE = 5  # requests have priority over their record


class RecorderError(RuntimeError):
    """A batch was not committed, or its commit is uncertain. The batch may be written again."""


class Batch(NamedTuple):
    """Rows of one table. `parts` are pickled columns by name, or frames as Arrow files (`arrow`). `number` is greater
    than that of every earlier batch of the same `app`, so that a batch that is written twice is in the table once."""

    layer: str
    model: str
    inputs: tuple[str, ...]
    app: str
    number: int
    parts: Sequence[bytes]
    arrow: bool = False


class Recorder:
    """The server's handle of the recorder process. The first batch starts the process. A later batch starts it again if
    it has ended."""

    def __init__(self, lake: Path) -> None:
        self._lake = lake
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the recorder process, or None before its first start."""
        return self._process.pid if self._process else None

    def write(self, batch: Batch) -> None:
        """Writes a batch and returns after its commit. Raises RecorderError."""
        process = self._process
        if process is None or process.poll() is not None:
            argv = [sys.executable, "-m", "city.serving.recorder", str(self._lake)]
            try:
                process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            except OSError as problem:  # for example a machine without memory; the caller retries as for other errors
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
            response = process.stdout.readline()
        except OSError:
            response = b""
        if not response:
            process.kill()
            raise RecorderError(f"the process that records predictions ended with code {process.wait()}")
        if error := orjson.loads(response)["error"]:
            raise RecorderError(error)

    def close(self) -> None:
        """Ends the process. It also ends by itself when the server has ended."""
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def run(lake: Path, source: BinaryIO, responses: BinaryIO) -> None:
    """Reads batches from `source`, commits them, and writes a JSON line with the error or null to `responses` for each.
    Returns at the end of `source`."""
    while line := source.readline():
        head = orjson.loads(line)
        parts = [source.read(size) for size in head["parts"]]
        if [len(part) for part in parts] != head["parts"]:
            return  # the server was killed while it wrote the batch
        batch = Batch(**head | {"parts": parts, "inputs": tuple(head["inputs"])})
        try:
            commit(lake, batch)
            error = None
        except Exception as problem:  # file systems and object stores raise exceptions of many types
            error = str(problem).partition("\n")[0] or type(problem).__name__
        responses.write(orjson.dumps({"error": error}) + b"\n")
        responses.flush()


def commit(lake: Path, batch: Batch) -> None:
    """Commits a batch to its table, unless the table has it already."""
    schema = SCHEMAS[batch.layer]
    table = open_table(locate(lake, batch.layer, batch.model), schema, [DAY], may_add=_ADDED)
    written = table.transaction_version(batch.app)
    if written is not None and written >= batch.number:
        return
    frames = [
        pl.read_ipc(BytesIO(part)) if batch.arrow else _to_frame(batch, pickle.loads(part)) for part in batch.parts
    ]
    rows = pl.concat(frames).with_columns(pl.col("at").dt.date().alias(DAY))
    typed = rows.select(pl.col(name).cast(kind) for name, kind in schema.items())
    properties = CommitProperties(app_transactions=[Transaction(batch.app, batch.number)])
    write_deltalake(table, typed, mode="append", commit_properties=properties)


def _to_frame(batch: Batch, columns: dict[str, Any]) -> pl.DataFrame:
    """Converts the server's columns to the table's. The server's have times in seconds, numbers as bytes, and
    predictions as numbers or text."""
    if batch.layer == SERVED:
        columns |= {
            "prediction": [p if isinstance(p, str) else f"{p:.6g}" for p in columns["prediction"]],
            "output": _bytes_to_arrays(columns["output"], np.float64).arr.to_list(),
            "inputs": _inputs_to_json(columns["inputs"], batch.inputs),
        }
    schema = {name: kind for name, kind in SCHEMAS[batch.layer].items() if name != DAY} | {"at": pl.Float64()}
    at = pl.from_epoch((pl.col("at") * 1e6).cast(pl.Int64), "us").dt.replace_time_zone("UTC")
    return pl.DataFrame(columns, schema=schema).with_columns(at)


def _bytes_to_arrays(rows: Sequence[bytes], kind: type[np.floating[Any]]) -> pl.Series:
    """Returns the numbers of each row as an array. All rows have the same width."""
    return pl.Series(np.frombuffer(b"".join(rows), kind).reshape(len(rows), -1))


def _inputs_to_json(rows: Sequence[bytes], names: tuple[str, ...]) -> pl.Series:
    """Returns each row's inputs (float32) as a JSON object by name, with null for NaN."""
    numbers = np.frombuffer(b"".join(rows), np.float32).reshape(len(rows), -1)
    frame = pl.from_numpy(numbers, list(names)).with_columns(pl.all().fill_nan(None))
    return frame.select(pl.struct(pl.all()).struct.json_encode()).to_series()


if __name__ == "__main__":
    # Ctrl-C reaches all processes of a terminal. The server decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # prints of libraries go to standard error and not among the responses
    run(Path(sys.argv[1]), sys.stdin.buffer, responses)
