"""Workers: whatever a loop raises, it comes back, and says so."""

import ast
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from city.settings import CHECKOUT
from city.stack import worker as module
from city.stack.worker import Worker, complaint, complaints, summaries, workers
from tests.live import until


@pytest.mark.parametrize(
    "error", [RuntimeError("broken\n  message"), SystemExit(1), KeyboardInterrupt(), MemoryError()]
)
def test_whatever_a_body_raises_it_is_called_again_and_the_error_is_reported(error: BaseException) -> None:
    turns: list[int] = []

    def body(worker: Worker) -> None:
        turns.append(len(turns))
        if len(turns) == 1:
            worker.progress(3)
            raise error
        while not worker.stop_requested.wait(0.01):
            worker.progress(1)

    worker = Worker("loop", body).start()
    until(lambda: worker.state == "running" and worker.items > 5)
    assert worker.restarts == 1
    assert str(worker.last_error).startswith(type(error).__name__)
    assert "\n" not in str(worker.complaint())
    assert worker in workers()
    assert worker.stop()
    assert worker.state == "stopped"
    assert worker not in workers()


def test_a_body_that_fails_again_and_again_waits_longer_each_time_and_stops_at_once() -> None:
    began: list[float] = []

    def body(worker: Worker) -> None:
        began.append(time.monotonic())
        raise OSError("away")

    worker = Worker("failing", body, longest_wait=1.0).start()
    until(lambda: worker.restarts >= 4 and worker.state == "restarting")
    assert worker.complaint() == f"restarting ({worker.restarts} restarts): OSError: away"
    waits = [after - before for before, after in pairwise(began)]
    assert waits[0] < max(waits[1:])
    assert sum(waits) > 0.5
    begin = time.monotonic()
    assert worker.stop()
    assert time.monotonic() - begin < 1.0  # it does not sit out its wait
    assert worker.state == "stopped"


def test_an_expected_error_is_over_with_the_next_progress() -> None:
    back = threading.Event()

    def body(worker: Worker) -> None:
        if not back.is_set():
            raise ConnectionError("the server is unavailable")
        while not worker.stop_requested.wait(0.01):
            worker.progress()

    worker = Worker("away", body).start()
    until(lambda: "the server is unavailable" in str(worker.complaint()))
    back.set()
    until(lambda: worker.state == "running")
    assert worker.complaint() is None
    worker.stop()


def test_a_fatal_error_ends_it_and_is_kept_for_its_owner() -> None:
    def body(worker: Worker) -> None:
        raise KeyError("fenced")

    worker = Worker("fenced", body, fatal=(KeyError,)).start()
    assert worker.join(10)
    assert isinstance(worker.failure, KeyError)
    assert (worker.restarts, worker.state) == (0, "stopped")
    assert "fenced" in complaints(summaries(), time.time())
    successor = Worker("fenced", lambda worker: None).start()
    assert successor.join(10)
    assert worker not in workers()


def test_a_body_that_returns_has_done_its_work() -> None:
    worker = Worker("once", lambda worker: worker.progress(1)).start()
    assert worker.join(10)
    assert (worker.state, worker.restarts, worker.items, worker.last_error) == ("stopped", 0, 1, None)


def test_workers_may_share_a_stop() -> None:
    stop = threading.Event()
    both = [Worker(f"w{n}", lambda w: w.stop_requested.wait() and None, stop=stop).start() for n in range(2)]  # type: ignore[func-returns-value]
    stop.set()
    assert all(worker.join(10) for worker in both)


def test_a_worker_that_hangs_is_not_well() -> None:
    release = threading.Event()

    def body(worker: Worker) -> None:
        worker.progress(1)
        release.wait(60)

    worker = Worker("hanging", body, stall_seconds=5).start()
    until(lambda: worker.items == 1)
    assert worker.complaint() is None
    assert worker.complaint(time.time() + 7) == "no progress for 7 s"
    assert complaint(worker.summary() | {"stall_seconds": None}, time.time() + 7) is None
    release.set()
    assert worker.stop()


def test_an_error_that_was_noted_goes_and_one_it_was_restarted_for_becomes_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crashed = threading.Event()

    def body(worker: Worker) -> None:
        if not crashed.is_set():
            crashed.set()
            raise ValueError("bad")
        while not worker.stop_requested.wait(0.01):
            worker.progress()

    worker = Worker("noting", body).start()
    until(lambda: worker.state == "running")
    worker.note("Kafka is unavailable")
    assert worker.complaint() == "Kafka is unavailable"
    worker.note(None)
    assert worker.complaint() == "ValueError: bad"
    monkeypatch.setattr(module, "_STEADY_SECONDS", 0.0)
    assert worker.complaint() is None
    worker.stop()


def test_no_bare_thread_remains() -> None:
    names = set()
    for folder in ("city", "city_assets", "resources", "sensors_and_schedules", "simulators"):
        for path in (CHECKOUT / folder).rglob("*.py"):
            if _makes_threads(path):
                names.add(str(path.relative_to(CHECKOUT)))
    assert names == {"city/stack/worker.py"}


def _makes_threads(path: Path) -> bool:
    """Whether a module makes a thread itself, or lets paho do so."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {f.attr if isinstance(f, ast.Attribute) else f.id if isinstance(f, ast.Name) else "" for f in calls}
    return bool(names & {"Thread", "Timer", "start_new_thread", "loop_start"})
