"""Many requests, one run of the model."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats

Rows = NDArray[np.float32]
_INLINE_SECONDS, _INLINE_ROWS = 0.003, 64
_SMOOTHING = 0.2


class Batcher:
    """Answers many callers by one run. Nobody waits for a timer: what comes in the same turn of the event loop, or
    while a run is under way, is in the next run, so batches grow with the load and a lone request is run at once.

    A run of few rows is made in the event loop while such runs have lately taken a few milliseconds at most, which
    costs less than a thread's wake-up; a longer one in `pool`.
    """

    def __init__(self, run: Callable[[Rows], Floats], pool: Executor, most_rows: int = 512) -> None:
        self._run, self._pool, self._most_rows = run, pool, most_rows
        self._waiting: list[tuple[Rows, asyncio.Future[Floats]]] = []
        self._busy = False
        self._seconds = 0.0

    async def predict(self, rows: Rows) -> Floats:
        """What the model says of rows (n, inputs). Raises what it raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Floats] = loop.create_future()
        self._waiting.append((rows, future))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._next)
        return await future

    def _next(self) -> None:
        batch: list[tuple[Rows, asyncio.Future[Floats]]] = []
        count = 0
        while self._waiting and (not batch or count + len(self._waiting[0][0]) <= self._most_rows):
            batch.append(self._waiting.pop(0))
            count += len(batch[-1][0])
        if not batch:
            self._busy = False
            return
        rows = batch[0][0] if len(batch) == 1 else np.concatenate([rows for rows, _ in batch])
        if self._seconds < _INLINE_SECONDS and count <= _INLINE_ROWS:
            try:
                self._done(batch, self._timed(rows))
            except Exception as error:
                self._failed(batch, error)
            return
        made = asyncio.get_running_loop().run_in_executor(self._pool, self._timed, rows)
        made.add_done_callback(lambda done: self._later(batch, done))

    def _timed(self, rows: Rows) -> Floats:
        began = time.perf_counter()
        said = self._run(rows)
        self._seconds += _SMOOTHING * (time.perf_counter() - began - self._seconds)
        return said

    def _later(self, batch: list[tuple[Rows, asyncio.Future[Floats]]], done: asyncio.Future[Floats]) -> None:
        error = done.exception()
        if error is not None:
            self._failed(batch, error)
        else:
            self._done(batch, done.result())

    def _done(self, batch: list[tuple[Rows, asyncio.Future[Floats]]], said: Floats) -> None:
        answers = _split(said, [rows for rows, _ in batch])
        for answer, (_, future) in zip(answers, batch, strict=True):
            if not future.done():  # its caller may have gone
                future.set_result(answer)
        self._go_on()

    def _failed(self, batch: list[tuple[Rows, asyncio.Future[Floats]]], error: BaseException) -> None:
        """Only who asked for what the model fails at is told so: the others of the batch are answered without it."""
        if len(batch) == 1:
            self._told_apart(batch, [error])
            return
        made = asyncio.get_running_loop().run_in_executor(self._pool, self._run_apart, [rows for rows, _ in batch])
        made.add_done_callback(lambda done: self._told_apart(batch, done.result()))

    def _told_apart(
        self, batch: list[tuple[Rows, asyncio.Future[Floats]]], answers: Sequence[Floats | BaseException]
    ) -> None:
        for answer, (_, future) in zip(answers, batch, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._go_on()

    def _run_apart(self, parts: list[Rows]) -> list[Floats | BaseException]:
        """What the model says of each part, or raises, where it fails at all of them together. Halves are run, and
        their halves, so that one bad part among n costs some 2 log2(n) runs."""
        middle = len(parts) // 2
        return [answer for half in (parts[:middle], parts[middle:]) for answer in self._run_or_halve(half)]

    def _run_or_halve(self, parts: list[Rows]) -> list[Floats | BaseException]:
        try:
            return [*_split(self._run(np.concatenate(parts)), parts)]
        except Exception as error:
            return [error] if len(parts) == 1 else self._run_apart(parts)

    def _go_on(self) -> None:
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._busy = False


def _split(said: Floats, parts: Sequence[Rows]) -> list[Floats]:
    """The answers to each part's rows."""
    ends = np.cumsum([len(rows) for rows in parts])
    return [said[end - len(rows) : end] for rows, end in zip(parts, ends, strict=True)]
