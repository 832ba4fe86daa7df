"""Processes that stream, one after the other, through a real Kafka."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from city.settings import Settings
from city.stack.state import STREAM, process_of, read_json
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.live import fresh, send, until

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(stack: Settings) -> Iterator[Start]:
    """Starts `city stream` with arguments."""
    processes: list[subprocess.Popen[bytes]] = []

    def stream(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "city.cli.main", "stream", *arguments]
        processes.append(subprocess.Popen(command, env=os.environ))
        return processes[-1]

    yield stream
    for process in processes:
        process.kill()
        process.wait()


def streaming(config: Settings) -> int | None:
    """The process that streams now."""
    process = process_of(read_json(config, STREAM))
    return process.pid if process else None


def streams_alone(config: Settings, pid: int, seconds: float) -> bool:
    """Whether only this process reports that it streams, for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if streaming(config) != pid:
            return False
        time.sleep(0.1)
    return True


def test_a_supervised_stream_waits_for_one_that_takes_over_and_then_continues(stack: Settings, start: Start) -> None:
    send(stack, VEHICLE_POSITIONS, *fresh(1))
    supervised = start("traffic", "--wait")
    until(lambda: streaming(stack) == supervised.pid)
    other = start("traffic", "--take-over")
    until(lambda: streams_alone(stack, other.pid, 3.0), 60)  # the first one reports until it learns that it is fenced
    waiting = start("traffic", "--wait")  # and so does one that starts meanwhile
    assert streams_alone(stack, other.pid, 5.0)
    assert (supervised.poll(), other.poll(), waiting.poll()) == (None, None, None)
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(10) == 0
    other.kill()
    until(lambda: streaming(stack) == supervised.pid)
    supervised.send_signal(signal.SIGINT)
    assert supervised.wait(30) == 0
    report = read_json(stack, STREAM)
    assert report is not None
    assert (report["ended"], report["failed"]) == (True, False)
