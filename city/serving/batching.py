"""Batches concurrent requests into one run of a model."""

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
    """Answers many callers with one run of the model. No request waits for a timer. Requests of the same turn of the
    event loop, and requests that arrive during a run, are in the next run. Batches therefore grow with the load, and a
    single request runs at once.

    A run of few rows takes place in the event loop while recent runs took at most a few milliseconds, because that
    costs less than a thread's wake-up. A longer run takes place in `pool`.
    """

    def __init__(self, run: Callable[[Rows], Floats], pool: Executor, most_rows: int = 512) -> None:
        self._run, self._pool, self._most_rows = run, pool, most_rows
        self._waiting: list[_Waiting] = []
        self._busy = False
        self._seconds = 0.0

    async def predict(self, rows: Rows) -> Floats:
        """Returns the model's output for rows (n, inputs). Raises what the model raises, and RuntimeError when the pool
        is shut down."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Floats] = loop.create_future()
        self._waiting.append((rows, future))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._run_next_batch)
        return await future

    def _run_next_batch(self) -> None:
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
        """Resolves the batch with the result of `run(*arguments)` in the pool. If the pool is shut down or drops the
        run, the whole batch fails, so that no caller waits for an answer that never comes."""

        def finish(completed: asyncio.Future[list[_Answer]]) -> None:
            try:
                answers = completed.result()
            except BaseException as error:  # a cancellation, or an exit that the model raised
                answers = [_deliverable_exception(error)] * len(batch)
            self._resolve(batch, answers)

        try:
            submitted = asyncio.get_running_loop().run_in_executor(self._pool, run, *arguments)
        except RuntimeError as error:
            self._resolve(batch, [error] * len(batch))
        else:
            submitted.add_done_callback(finish)

    def _resolve(self, batch: list[_Waiting], answers: Sequence[_Answer]) -> None:
        for answer, (_, future) in zip(answers, batch, strict=True):
            if future.done():  # the caller may have been cancelled
                continue
            if isinstance(answer, Exception):
                future.set_exception(_deliverable_exception(answer))
            else:
                future.set_result(answer)
        self._schedule_next_batch()

    def _run_together(self, parts: list[Rows]) -> list[_Answer]:
        start = time.perf_counter()
        answers = self._run_once(parts)
        self._seconds += _SMOOTHING * (time.perf_counter() - start - self._seconds)
        return answers

    def _run_once(self, parts: list[Rows]) -> list[_Answer]:
        return [*_split_output(self._run(parts[0] if len(parts) == 1 else np.concatenate(parts)), parts)]

    def _run_parts(self, parts: list[Rows]) -> list[_Answer]:
        """Returns the answer to each part, or the error of a part that the model fails on. The other parts of the batch
        are answered without it."""
        try:
            return self._run_together(parts)
        except Exception as error:
            return [error] if len(parts) == 1 else self._run_halves(parts, _Failures())

    def _run_halves(self, parts: list[Rows], failures: "_Failures") -> list[_Answer]:
        """Returns the answer to each of two or more parts on which the model fails as a whole. Runs the halves, and
        their halves, so that one bad part among n costs about 2 log2(n) runs. After `_MOST_FAILED_PARTS` bad parts a
        half that fails is not divided further, and all its parts get its error. A model that always fails therefore
        costs a few runs, not 2n."""
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

    def _schedule_next_batch(self) -> None:
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._run_next_batch)
        else:
            self._busy = False


@dataclass
class _Failures:
    """Counts the parts of one batch that the model failed on."""

    parts: int = 0


def _deliverable_exception(error: BaseException) -> Exception:
    """Returns the error in a form that a future can carry to its caller without ending the caller's task or the event
    loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the run of the model ended with {error!r}")
    wrapped.__cause__ = error
    return wrapped


def _split_output(output: Floats, parts: Sequence[Rows]) -> list[Floats]:
    """Splits the output of a run into the output of each part's rows."""
    ends = np.cumsum([len(rows) for rows in parts])
    return [output[end - len(rows) : end] for rows, end in zip(parts, ends, strict=True)]
