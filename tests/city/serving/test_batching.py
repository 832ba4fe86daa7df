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
            asked = [np.full((size, 2), n, np.float32) for n, size in enumerate(sizes)]
            told = await asyncio.gather(*map(batcher.predict, asked))
            for rows, answers in zip(asked, told, strict=True):
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
            told = await asyncio.gather(*map(batcher.predict, [good, bad, good]), return_exceptions=True)
            assert [isinstance(answer, Exception) for answer in told] == [False, True, False]
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
            asked = [np.full((2, 1), -n if n in bad else n, np.float32) for n in range(64)]
            told = await asyncio.gather(*map(batcher.predict, asked), return_exceptions=True)
            assert {n for n, answer in enumerate(told) if isinstance(answer, ArithmeticError)} == bad
            assert all((told[n] == asked[n]).all() for n in range(64) if n not in bad)
            assert len(runs) <= 3 * 2 * 6 + 1
            assert (await batcher.predict(asked[1]) == asked[1]).all()

    asyncio.run(ask())
