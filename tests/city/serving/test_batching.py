"""Many callers, one run of the model."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from city.serving.batching import Batcher, Rows


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=40), most=st.integers(1, 20))
def test_each_caller_gets_the_answers_to_its_own_rows(sizes: list[int], most: int) -> None:
    runs: list[int] = []

    def double(rows: Rows) -> Rows:
        runs.append(len(rows))
        return rows[:, 0] * 2

    async def ask() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(double, pool, most_rows=most)
            requests = [np.full((size, 2), n, np.float32) for n, size in enumerate(sizes)]
            outputs = await asyncio.gather(*map(batcher.predict, requests))
            for rows, answers in zip(requests, outputs, strict=True):
                assert (answers == rows[:, 0] * 2).all()
                assert len(answers) == len(rows)

    asyncio.run(ask())
    assert sum(runs) == sum(sizes)
    assert all(count <= max(most, *sizes) for count in runs)
    if sum(sizes) <= most:
        assert runs == [sum(sizes)]


def test_a_slow_model_gathers_what_comes_meanwhile_and_holds_nobody_up() -> None:
    runs: list[tuple[int, bool]] = []
    goes_on = threading.Event()

    def slow(rows: Rows) -> Rows:
        within_loop = threading.current_thread() is threading.main_thread()
        runs.append((len(rows), within_loop))
        time.sleep(0.05) if within_loop else goes_on.wait(10)
        return rows

    async def ask() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher, row = Batcher(slow, pool), np.zeros((1, 1), np.float32)
            await batcher.predict(row)  # now it is known to be slow
            first = asyncio.ensure_future(batcher.predict(row))
            while len(runs) < 2:
                await asyncio.sleep(0.001)
            others = [asyncio.ensure_future(batcher.predict(row)) for _ in range(30)]
            for _ in range(10):
                await asyncio.sleep(0.001)  # the loop goes on while the model runs
            assert not first.done()
            goes_on.set()
            await asyncio.gather(first, *others)

    asyncio.run(ask())
    assert runs == [(1, True), (1, False), (30, False)]


def test_who_fails_fails_for_its_own_batch_only() -> None:
    def picky(rows: Rows) -> Rows:
        if (rows < 0).any():
            raise ArithmeticError("negative")
        return rows

    async def ask() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(picky, pool, most_rows=1)
            good, bad = np.ones((1, 1), np.float32), -np.ones((1, 1), np.float32)
            outputs = await asyncio.gather(*map(batcher.predict, [good, bad, good]), return_exceptions=True)
            assert [isinstance(answer, Exception) for answer in outputs] == [False, True, False]
            with pytest.raises(ArithmeticError):
                await batcher.predict(bad)
            assert (await batcher.predict(good) == good).all()

    asyncio.run(ask())


@pytest.mark.parametrize("is_slow", [False, True])
def test_who_shares_a_batch_with_one_that_fails_is_answered(is_slow: bool) -> None:
    runs: list[int] = []

    def picky(rows: Rows) -> Rows:
        runs.append(len(rows))
        if (rows < 0).any():
            raise ArithmeticError("negative")
        return rows

    async def ask() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(picky, pool)
            batcher._seconds = 1.0 if is_slow else 0.0
            bad = {5, 6, 40}
            requests = [np.full((2, 1), -n if n in bad else n, np.float32) for n in range(64)]
            outputs = await asyncio.gather(*map(batcher.predict, requests), return_exceptions=True)
            assert {n for n, answer in enumerate(outputs) if isinstance(answer, ArithmeticError)} == bad
            assert all((outputs[n] == requests[n]).all() for n in range(64) if n not in bad)
            assert len(runs) <= 3 * 2 * 6 + 1
            assert (await batcher.predict(requests[1]) == requests[1]).all()

    asyncio.run(ask())


def ask_all(batcher: Batcher, requests: list[Rows]) -> list[Rows | BaseException]:
    """The answer or the error of each caller, who came in the same turn of the loop."""

    async def ask() -> list[Rows | BaseException]:
        waiting = asyncio.gather(*map(batcher.predict, requests), return_exceptions=True)
        return await asyncio.wait_for(waiting, 10)

    return asyncio.run(ask())


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_pool_that_is_shut_down_fails_whoever_waits_and_holds_nobody(is_slow: bool) -> None:
    def picky(rows: Rows) -> Rows:
        raise ArithmeticError("negative")

    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    batcher = Batcher(picky, pool, most_rows=4)
    batcher._seconds = 1.0 if is_slow else 0.0
    for _ in range(2):  # the batcher is not left as if a run were under way
        outputs = ask_all(batcher, [np.ones((1, 1), np.float32)] * 10)
        assert {type(answer) for answer in outputs[:8]} == {RuntimeError}
        assert "after shutdown" in str(outputs[0])


def test_a_run_that_the_pool_drops_fails_its_callers() -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        goes_on.wait(10)

    async def ask() -> None:
        pool = ThreadPoolExecutor(1)
        pool.submit(block)
        assert begun.wait(10)
        batcher = Batcher(lambda rows: rows, pool)
        batcher._seconds = 1.0
        waiting = [asyncio.ensure_future(batcher.predict(np.ones((1, 1), np.float32))) for _ in range(3)]
        while not pool._work_queue.qsize():
            await asyncio.sleep(0)
        pool.shutdown(wait=False, cancel_futures=True)
        outputs = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
        goes_on.set()
        assert [type(answer) for answer in outputs] == [RuntimeError] * 3

    try:
        asyncio.run(ask())
    finally:
        goes_on.set()


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration("empty"), asyncio.CancelledError()])
def test_what_no_future_can_carry_is_told_as_an_error_and_the_next_are_answered(error: BaseException) -> None:
    failing = [True]

    def exits(rows: Rows) -> Rows:
        if failing:
            failing.pop()
            raise error
        return rows

    with ThreadPoolExecutor(1) as pool:
        batcher = Batcher(exits, pool)
        batcher._seconds = 1.0
        row = np.ones((1, 1), np.float32)
        (answer,) = ask_all(batcher, [row])
        assert isinstance(answer, RuntimeError)
        assert type(error).__name__ in str(answer)
        assert [*ask_all(batcher, [row])] == [row]


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_model_that_always_fails_costs_a_few_runs_however_large_the_batch(is_slow: bool) -> None:
    runs: list[int] = []

    def broken(rows: Rows) -> Rows:
        runs.append(len(rows))
        raise ArithmeticError("broken")

    with ThreadPoolExecutor(1) as pool:
        batcher = Batcher(broken, pool)
        batcher._seconds = 1.0 if is_slow else 0.0
        count = 512 if is_slow else 64
        outputs = ask_all(batcher, [np.ones((1, 1), np.float32)] * count)
    assert {type(answer) for answer in outputs} == {ArithmeticError}
    assert len(runs) <= 32


def test_who_is_in_a_half_without_a_bad_part_is_answered_however_many_are_bad() -> None:
    def picky(rows: Rows) -> Rows:
        if (rows < 0).any():
            raise ArithmeticError("negative")
        return rows

    with ThreadPoolExecutor(1) as pool:
        batcher = Batcher(picky, pool)
        batcher._seconds = 1.0
        requests = [np.full((1, 1), -1 if n < 256 else 1, np.float32) for n in range(512)]
        outputs = ask_all(batcher, requests)
    assert {type(answer) for answer in outputs[:256]} == {ArithmeticError}
    assert all(isinstance(answer, np.ndarray) for answer in outputs[256:])
