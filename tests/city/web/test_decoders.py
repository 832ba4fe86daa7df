"""Bodies that are read beside the event loop, and the process that reads the largest."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from city.serving.inputs import Inputs, parse_batch_rows
from city.serving.tensors import parse_infer_rows
from city.web.decoders import THREAD_BYTES, Decoders
from city.web.json_process import JsonProcess
from city.web.problems import Problem
from tests.city.serving.served import FEATURES, SPEED
from tests.live import until

INPUTS = Inputs(SPEED)


def infer_body(rows: int) -> bytes:
    wide = len(INPUTS.names)
    data = ",".join(["1.25"] * (rows * wide))
    tensor = f'{{"name":"inputs","shape":[{rows},{wide}],"datatype":"FP64","data":[{data}]}}'
    return f'{{"id":"7","inputs":[{tensor}]}}'.encode()


@pytest.fixture
def process() -> Iterator[JsonProcess]:
    running = JsonProcess()
    yield running
    running.close()


def test_the_loop_goes_on_while_20_megabytes_are_read() -> None:
    """While a parser runs in a thread, however large its body, nobody else is answered."""
    body = infer_body(20_000_000 // (5 * len(INPUTS.names)))
    assert 19_000_000 < len(body) < 21_000_000

    async def longest_pause(read: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
        reading, longest = asyncio.ensure_future(read()), 0.0
        while not reading.done():
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - began)
        return longest, reading.result()

    async def measure() -> None:
        decoders = Decoders()
        try:
            await decoders.read(parse_infer_rows, infer_body(40_000), INPUTS)  # the process is there
            thread = [await longest_pause(lambda: asyncio.to_thread(parse_infer_rows, body, INPUTS)) for _ in range(2)]
            other = [await longest_pause(lambda: decoders.read(parse_infer_rows, body, INPUTS)) for _ in range(5)]
        finally:
            decoders.stop()
        pauses = min(pause for pause, _ in thread), min(pause for pause, _ in other)
        print(f"longest pause of the loop: {pauses[0] * 1e3:.0f} ms with a thread, {pauses[1] * 1e3:.0f} ms here")
        assert pauses[1] < pauses[0] / 3
        (_, (number, rows)), (_, (same_number, same_rows)) = thread[0], other[0]
        assert number == same_number == "7"
        assert np.array_equal(rows, same_rows)

    asyncio.run(measure())


def test_what_is_wrong_with_a_large_body_is_named_as_of_a_small_one(process: JsonProcess) -> None:
    known = {"speed": INPUTS}
    rows: list[Any] = [FEATURES] * 1_200
    rows[1_100] = {**FEATURES, "speed_mean": "fast"}
    for path, status, field in (
        ({"model_name": "speed", "instances": rows}, 422, "instances.1100.speed_mean"),
        ({"model_name": "sped", "instances": rows[:2]}, 404, None),
        ({"model_name": "speed", "instances": [[1.0] * 3]}, 422, "instances.0"),
    ):
        body = json.dumps(path).encode()
        problems = []
        for read in (parse_batch_rows, lambda *of: process.run(parse_batch_rows, *of)):
            with pytest.raises(Problem) as raised:
                read(body, known)
            problems.append(raised.value)
        assert (problems[1].status, problems[1].detail) == (problems[0].status, problems[0].detail)
        assert problems[1].status == status
        assert problems[1].errors == problems[0].errors
        assert not field or problems[1].errors[0][0] == field
    body = json.dumps({"model_name": "speed", "instances": rows[:9]}).encode()
    options, many = process.run(parse_batch_rows, body, known)
    assert (options.model_name, options.return_probabilities, many.shape) == ("speed", False, (9, len(INPUTS.names)))


def boom(body: bytes) -> None:
    raise LookupError(body.decode())


def die(body: bytes) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_fails_or_dies_is_said_and_the_next_body_is_read(process: JsonProcess) -> None:
    with pytest.raises(RuntimeError, match="LookupError: x"):
        process.run(boom, b"x")
    assert process.pid is not None
    before = process.pid
    with pytest.raises(Problem, match="send it in parts") as raised:
        process.run(die, b"x" * THREAD_BYTES)
    assert raised.value.status == 503
    assert process.run(len, b"x" * THREAD_BYTES) == THREAD_BYTES
    assert process.pid != before
    running = psutil.Process(process.pid)
    process.close()
    assert not running.is_running()


def test_a_process_that_had_nothing_to_do_ends_and_is_started_again() -> None:
    process = JsonProcess(idle_seconds=0.5)
    assert process.run(len, b"123") == 3
    first = process._process
    assert first is not None
    assert first.wait(20) == 0
    first.poll = lambda: None  # type: ignore[method-assign]  # as in the moment in which it ends
    assert process.run(len, b"1234") == 4
    assert process.pid != first.pid
    process.close()


def hang(body: bytes, begun: Path | None = None) -> None:
    if begun is not None:
        begun.touch()
    signal.pause()


def take_all_memory(body: bytes) -> None:
    bytearray(1 << 62)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_process_that_hangs_is_killed_at_its_deadline_and_the_next_body_is_read(
    process: JsonProcess, is_stopped: bool
) -> None:
    body = b"x" * THREAD_BYTES  # more than a pipe holds: the server hangs where it writes, or where it reads
    assert process.run(len, b"123") == 3
    assert process.pid is not None
    hanging = psutil.Process(process.pid)
    if is_stopped:
        os.kill(process.pid, signal.SIGSTOP)
    process.deadline_seconds = 0.3
    with pytest.raises(Problem, match=r"not read within 0.3 s: send it in parts") as raised:
        process.run(len if is_stopped else hang, body)
    assert raised.value.status == 503
    assert not hanging.is_running()
    process.deadline_seconds = 60
    assert process.run(len, body) == len(body)


def test_a_body_that_takes_all_memory_is_answered_503_and_the_process_goes_on(process: JsonProcess) -> None:
    with pytest.raises(Problem, match="more memory than there is; send it in parts") as raised:
        process.run(take_all_memory, b"x")
    assert raised.value.status == 503
    before = process.pid
    assert process.run(len, b"123") == 3
    assert process.pid == before


def test_a_server_that_stops_waits_for_no_body(tmp_path: Path) -> None:
    body, begun = b"x" * (THREAD_BYTES + 1), tmp_path / "begun"

    async def stop() -> list[Any]:
        decoders = Decoders()
        reading = asyncio.gather(decoders.read(hang, body, begun), decoders.read(len, body), return_exceptions=True)
        await asyncio.to_thread(until, begun.exists)
        decoders.stop()
        return await asyncio.wait_for(reading, 10)

    assert [(type(problem), problem.status) for problem in asyncio.run(stop())] == [(Problem, 503)] * 2
