"""Many requests, one run of the model."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats

Rows = NDArray[np.float32]
_Waiting = tuple[Rows, asyncio.Future[Floats]]
_Answer = Floats | Exception
_INLINE_SECONDS, _INLINE_ROWS = 0.003, 64
_SMOOTHING = 0.2
_MOST_FAILED_PARTS = 8


class Batcher:
    """Answers many callers by one run. Nobody waits for a timer: what comes in the same turn of the event loop, or
    while a run is under way, is in the next run, so batches grow with the load and a lone request is run at once.

    A run of few rows is made in the event loop while such runs have lately taken a few milliseconds at most, which
    costs less than a thread's wake-up; a longer one in `pool`.
    """

    def __init__(self, run: Callable[[Rows], Floats], pool: Executor, most_rows: int = 512) -> None:
        self._run, self._pool, self._most_rows = run, pool, most_rows
        self._waiting: list[_Waiting] = []
        self._busy = False
        self._seconds = 0.0

    async def predict(self, rows: Rows) -> Floats:
        """What the model says of rows (n, inputs). Raises what it raises, and RuntimeError where the pool is shut
        down."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Floats] = loop.create_future()
        self._waiting.append((rows, future))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._next)
        return await future

    def _next(self) -> None:
        batch: list[_Waiting] = []
        count = 0
        while self._waiting and (not batch or count + len(self._waiting[0][0]) <= self._most_rows):
            batch.append(self._waiting.pop(0))
            count += len(batch[-1][0])
        if not batch:
            self._busy = False
            return
        parts = [rows for rows, _ in batch]
        if self._seconds >= _INLINE_SECONDS or count > _INLINE_ROWS:
            self._submit(batch, self._run_parts, parts)
            return
        try:
            answers = self._run_together(parts)
        except Exception as error:
            if len(batch) == 1:
                self._resolve(batch, [error])
            else:
                self._submit(batch, self._run_halves, parts, _Failures())
        else:
            self._resolve(batch, answers)

    def _submit(self, batch: list[_Waiting], run: Callable[..., list[_Answer]], *arguments: object) -> None:
        """Resolves the batch with what `run(*arguments)` returns in the pool. A pool that is shut down, or that drops
        the run, fails the whole batch: nobody waits for an answer that does not come."""

        def finish(done: asyncio.Future[list[_Answer]]) -> None:
            try:
                answers = done.result()
            except BaseException as error:  # a cancellation, or an exit that the model raised
                answers = [_exception(error)] * len(batch)
            self._resolve(batch, answers)

        try:
            submitted = asyncio.get_running_loop().run_in_executor(self._pool, run, *arguments)
        except RuntimeError as error:
            self._resolve(batch, [error] * len(batch))
        else:
            submitted.add_done_callback(finish)

    def _resolve(self, batch: list[_Waiting], answers: Sequence[_Answer]) -> None:
        for answer, (_, future) in zip(answers, batch, strict=True):
            if future.done():  # its caller may have gone
                continue
            if isinstance(answer, Exception):
                future.set_exception(_exception(answer))
            else:
                future.set_result(answer)
        self._go_on()

    def _run_together(self, parts: list[Rows]) -> list[_Answer]:
        began = time.perf_counter()
        answers = self._run_once(parts)
        self._seconds += _SMOOTHING * (time.perf_counter() - began - self._seconds)
        return answers

    def _run_once(self, parts: list[Rows]) -> list[_Answer]:
        return [*_split(self._run(parts[0] if len(parts) == 1 else np.concatenate(parts)), parts)]

    def _run_parts(self, parts: list[Rows]) -> list[_Answer]:
        """The answer to each part, or the error of a part that the model fails at: the others of the batch are answered
        without it."""
        try:
            return self._run_together(parts)
        except Exception as error:
            return [error] if len(parts) == 1 else self._run_halves(parts, _Failures())

    def _run_halves(self, parts: list[Rows], failures: "_Failures") -> list[_Answer]:
        """The answer to each of two parts or more, at which the model fails together. Halves are run, and their halves,
        so that one bad part among n costs some 2 log2(n) runs. After `_MOST_FAILED_PARTS` bad parts a half that fails
        is not divided further, and all of it gets its error: a model that always fails costs a few runs, not 2n."""
        middle = len(parts) // 2
        return [answer for half in (parts[:middle], parts[middle:]) for answer in self._run_half(half, failures)]

    def _run_half(self, parts: list[Rows], failures: "_Failures") -> list[_Answer]:
        try:
            return self._run_once(parts)
        except Exception as error:
            if len(parts) > 1 and failures.parts < _MOST_FAILED_PARTS:
                return self._run_halves(parts, failures)
            failures.parts += len(parts)
            return [error] * len(parts)

    def _go_on(self) -> None:
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._busy = False


@dataclass
class _Failures:
    """Of one batch, the parts that the model failed at."""

    parts: int = 0


def _exception(error: BaseException) -> Exception:
    """The error as a future can carry it to its caller without ending the caller's task or the loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the run of the model ended with {error!r}")
    wrapped.__cause__ = error
    return wrapped


def _split(said: Floats, parts: Sequence[Rows]) -> list[Floats]:
    """The answers to each part's rows."""
    ends = np.cumsum([len(rows) for rows in parts])
    return [said[end - len(rows) : end] for rows, end in zip(parts, ends, strict=True)]
