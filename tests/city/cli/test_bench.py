"""A benchmark that is terminated stops what it started."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from city.cli import bench


@pytest.fixture(autouse=True)
def _signal_handler() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def test_a_terminated_benchmark_stops_its_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = []

    def run(tell: Callable[[str], None]) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            stopped.append("kafka")

    monkeypatch.setattr("benchmarks.known", lambda: ["short"])
    monkeypatch.setattr("benchmarks.load", lambda name: SimpleNamespace(run=run))
    with pytest.raises(SystemExit) as ended:
        bench.command("short")
    assert ended.value.code == 128 + signal.SIGTERM
    assert stopped == ["kafka"]
