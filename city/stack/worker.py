"""Supervises threads. Every background loop runs in a Worker, which restarts it and reports its state."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Literal

from city.stack.backoff import Backoff, Stopped
from city.stack.progress import NO_PROGRESS
from city.stack.reports import WorkerSummary

log = logging.getLogger(__name__)

State = Literal["starting", "running", "restarting", "stopped"]
STATES: tuple[State, ...] = ("starting", "running", "restarting", "stopped")
_STEADY_SECONDS = 60.0
"""After this run time of a body, the next restart has the shortest wait again, and the last error is cleared."""


class Worker:
    """Runs `body(worker)` in a thread of its own, repeatedly, until it returns or a stop is requested.

    The body loops while `worker.stop_requested.is_set()` is false, and calls `worker.progress(count)` in each round.
    `count` is the number of items that it handled, 0 where there was nothing to do. The worker stores an exception of
    the body as `last_error`, and calls the body again after a wait that doubles up to `longest_wait` seconds. So a body
    opens its resources (a consumer, a connection) itself, and closes them in a `finally`.

    Exceptions of the types `expected` come from another system, such as a server that is unavailable. They are logged
    without a traceback, and the next progress clears them. A restart cannot repair exceptions of the types `fatal`:
    they end the worker, and the worker's owner reads them in `failure`. When the body returns, its work is done and the
    worker is stopped.

    Several workers may share one `stop` event. A worker without progress for `stall_seconds` is not well. A body that
    may validly take long has infinity there.
    """

    def __init__(
        self,
        name: str,
        body: Callable[["Worker"], None],
        *,
        stop: threading.Event | None = None,
        fatal: tuple[type[BaseException], ...] = (),
        expected: tuple[type[BaseException], ...] = (OSError,),
        stall_seconds: float = 60.0,
        longest_wait: float = 15.0,
    ) -> None:
        self.name = name
        self.stop_requested = stop or threading.Event()
        self.state: State = "starting"
        self.restarts = 0
        self.items = 0
        """The number of items that the worker has handled since its start, restarts included."""
        self.last_progress: float | None = None
        """The time of the body's last round, in seconds since the epoch."""
        self.failure: BaseException | None = None
        self.stall_seconds = stall_seconds
        self._body, self._longest_wait = body, longest_wait
        self._fatal, self._expected = fatal, expected
        self._noted: str | None = None
        self._crash: str | None = None
        self._crash_passes = False
        self._began = time.time()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._supervise, name=name, daemon=True)

    def start(self) -> "Worker":
        """Starts the thread and returns the worker."""
        self._began = time.time()
        _registry.add(self)
        self._thread.start()
        return self

    def stop(self, seconds: float = 10.0) -> bool:
        """Requests a stop and waits at most `seconds` for the end. Returns whether the thread has ended."""
        self.stop_requested.set()
        return self.join(seconds)

    def join(self, seconds: float | None = None) -> bool:
        """Waits at most `seconds` for the end, without a stop request. Returns whether the thread has ended."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def dismiss(self) -> None:
        """Removes the worker from this process's list. Its owner calls this after it has handled the worker's end."""
        _registry.remove(self)

    def is_alive(self) -> bool:
        """Returns whether the thread runs."""
        return self._thread.is_alive()

    def progress(self, count: int = 0) -> None:
        """Records a round of the body with `count` handled items. Callable from any thread."""
        with self._lock:
            self.items += count
            self.last_progress = time.time()
            if self.state != "stopped":
                self.state = "running"
                self._crash = None if self._crash_passes else self._crash

    def note(self, error: str | None) -> None:
        """Records an error that does not end the body, or None once it is over."""
        self._noted = error

    @property
    def last_error(self) -> str | None:
        """The noted error, or the error of the last restart until the body has run for a minute since then."""
        return self._noted or self._crash

    def complaint(self, now: float | None = None) -> str | None:
        """Returns why the worker is not well: an error, or no progress for too long. None where it is well."""
        return complaint(self.summary(), time.time() if now is None else now)

    def summary(self) -> WorkerSummary:
        """Returns the state as JSON values, for heartbeat files, `/health` and `/metrics`.

        Times are in seconds since the epoch.
        """
        if self._crash and self.state == "running" and time.time() - self._began > _STEADY_SECONDS:
            self._crash = None
        return {
            "name": self.name,
            "state": self.state,
            "restarts": self.restarts,
            "items": self.items,
            "began": self._began,
            "last_progress": self.last_progress,
            # JSON has no infinity.
            "stall_seconds": self.stall_seconds if self.stall_seconds < float("inf") else None,
            "last_error": self.last_error,
        }

    def _supervise(self) -> None:
        backoff = Backoff(self.stop_requested, self._longest_wait)
        try:
            while not self.stop_requested.is_set():
                began = time.monotonic()
                try:
                    self._body(self)
                    break
                except self._fatal as error:
                    self.failure = error
                    self._crash = describe(error)
                    log.error("%s ends: %s", self.name, self._crash)
                    break
                except BaseException as error:
                    if self.stop_requested.is_set():
                        if not isinstance(error, Stopped):
                            log.warning("%s, which was stopping: %s", self.name, describe(error))
                        break
                    self._record_crash(error)
                if time.monotonic() - began > _STEADY_SECONDS:
                    backoff.reset()
                backoff.wait()
                self._began = time.time()
                self.restarts += 1
        except Stopped:
            pass
        finally:
            with self._lock:
                self.state = "stopped"
            if self.failure is None:
                _registry.remove(self)

    def _record_crash(self, error: BaseException) -> None:
        text, expected = describe(error), isinstance(error, self._expected)
        if text != self._crash:  # logged once, not at each attempt while a server is unavailable for an hour
            log.error("%s: %s; it is restarted", self.name, text, exc_info=None if expected else error)
        with self._lock:
            self.state = "restarting"
            self._crash, self._crash_passes, self._noted = text, expected, None


class _Registry:
    """Lists the workers of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: list[Worker] = []

    def add(self, worker: Worker) -> None:
        with self._lock:  # a worker that a fatal error ended stays until a worker of the same name replaces it
            self._workers = [w for w in self._workers if w.is_alive() or w.name != worker.name] + [worker]

    def remove(self, worker: Worker) -> None:
        with self._lock:
            self._workers = [w for w in self._workers if w is not worker]

    def all(self) -> list[Worker]:
        with self._lock:
            return list(self._workers)


_registry = _Registry()


def workers() -> list[Worker]:
    """Returns this process's workers that were started and not stopped, and those that a fatal error ended."""
    return _registry.all()


def summaries() -> list[WorkerSummary]:
    """Returns the summaries of all workers of this process. A repeated name gets a number."""
    by_name: dict[str, WorkerSummary] = {}
    for summary in (worker.summary() for worker in workers()):
        name, number = summary["name"], 1
        while summary["name"] in by_name:
            number += 1
            summary["name"] = f"{name} {number}"
        by_name[summary["name"]] = summary
    return list(by_name.values())


def complaint(summary: WorkerSummary, now: float) -> str | None:
    """Returns why a worker is not well, from its summary at `now` (seconds since the epoch); None where it is well."""
    if summary["state"] in ("restarting", "stopped"):
        return f"{summary['state']} ({summary['restarts']} restarts): {summary['last_error'] or 'no error'}"
    if summary["last_error"]:
        return str(summary["last_error"])
    if summary["stall_seconds"] is None:
        return None
    idle = now - max(summary["last_progress"] or 0.0, summary["began"])
    return f"{NO_PROGRESS} {idle:.0f} s" if idle > summary["stall_seconds"] else None


def complaints(worker_summaries: Iterable[WorkerSummary], now: float) -> dict[str, str]:
    """Returns the workers that are not well, by name, with the reason."""
    return {summary["name"]: text for summary in worker_summaries if (text := complaint(summary, now)) is not None}


def describe(error: BaseException) -> str:
    """Describes an exception in one line."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
