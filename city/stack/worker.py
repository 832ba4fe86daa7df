"""Supervised threads: every loop in the background runs in a Worker, which restarts it and says how it does."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

from city.stack.backoff import Backoff, Stopped
from city.stack.progress import NO_PROGRESS

log = logging.getLogger(__name__)

State = Literal["starting", "running", "restarting", "stopped"]
STATES: tuple[State, ...] = ("starting", "running", "restarting", "stopped")
_STEADY_SECONDS = 60.0
"""A body that ran this long begins again with the shortest wait, and the error before it is history."""


class Worker:
    """Runs `body(worker)` in a thread of its own, again and again until it returns or a stop is asked for.

    The body loops while `worker.stop_requested.is_set()` is false and calls `worker.progress(count)` each time it goes
    round: `count` is how many items it handled, 0 where there was nothing to do. Whatever it raises is kept as
    `last_error`, and the body is called again after a wait that doubles up to `longest_wait` seconds. So a body opens
    what it needs (a consumer, a connection) itself, and closes it in a `finally`.

    Exceptions of the types `expected` are of what it talks to (a server that is away): they are logged without a
    traceback, and are over with the next progress. Exceptions of the types `fatal` are not for a restart to mend: they
    end the worker, and `failure` holds them for whoever owns it. A body that returns has done its work: the worker is
    stopped.

    Several workers may share one `stop` event. A worker without progress for `stall_seconds` is not well; give
    infinity to a body that may rightly take long.
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
        """How many items it has handled since it was started, restarts included."""
        self.last_progress: float | None = None
        """When it last went round, in seconds since the epoch."""
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
        self._began = time.time()
        _registry.add(self)
        self._thread.start()
        return self

    def stop(self, seconds: float = 10.0) -> bool:
        """Asks the body to stop and waits for it, at most `seconds`; whether it has ended."""
        self.stop_requested.set()
        return self.join(seconds)

    def join(self, seconds: float | None = None) -> bool:
        """Waits for the end, at most `seconds`, without asking for it; whether it has come."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def dismiss(self) -> None:
        """Its owner has heard of its end: it is no longer listed among the workers of this process."""
        _registry.remove(self)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def progress(self, count: int = 0) -> None:
        """The body went round and handled `count` items. Callable from any thread."""
        with self._lock:
            self.items += count
            self.last_progress = time.time()
            if self.state != "stopped":
                self.state = "running"
                self._crash = None if self._crash_passes else self._crash

    def note(self, error: str | None) -> None:
        """What is wrong while the body goes on, or None once it is right again."""
        self._noted = error

    @property
    def last_error(self) -> str | None:
        """What is wrong now, else what the body was restarted for, until it has run for a minute since."""
        return self._noted or self._crash

    def complaint(self, now: float | None = None) -> str | None:
        """Why it is not well: an error, or no progress for too long. None where it is well."""
        return complaint(self.summary(), time.time() if now is None else now)

    def summary(self) -> dict[str, Any]:
        """For heartbeat files, `/health` and `/metrics`. Times are seconds since the epoch."""
        if self._crash and self.state == "running" and time.time() - self._began > _STEADY_SECONDS:
            self._crash = None
        return {
            "name": self.name,
            "state": self.state,
            "restarts": self.restarts,
            "items": self.items,
            "began": self._began,
            "last_progress": self.last_progress,
            # JSON knows no infinity.
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
                    self._crashed(error)
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

    def _crashed(self, error: BaseException) -> None:
        text, expected = describe(error), isinstance(error, self._expected)
        if text != self._crash:  # said once, not at each attempt for the hour that a server is away
            log.error("%s: %s; it is restarted", self.name, text, exc_info=None if expected else error)
        with self._lock:
            self.state = "restarting"
            self._crash, self._crash_passes, self._noted = text, expected, None


class _Registry:
    """The workers of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: list[Worker] = []

    def add(self, worker: Worker) -> None:
        with self._lock:  # one that ended by a fatal error has been kept until its successor came
            self._workers = [w for w in self._workers if w.is_alive() or w.name != worker.name] + [worker]

    def remove(self, worker: Worker) -> None:
        with self._lock:
            self._workers = [w for w in self._workers if w is not worker]

    def all(self) -> list[Worker]:
        with self._lock:
            return list(self._workers)


_registry = _Registry()


def workers() -> list[Worker]:
    """This process's workers that were started and not stopped, and those that a fatal error ended."""
    return _registry.all()


def summaries() -> list[dict[str, Any]]:
    """What all workers of this process say of themselves; a name that stands twice is numbered."""
    found: dict[str, dict[str, Any]] = {}
    for summary in (worker.summary() for worker in workers()):
        name, number = summary["name"], 1
        while summary["name"] in found:
            number += 1
            summary["name"] = f"{name} {number}"
        found[summary["name"]] = summary
    return list(found.values())


def complaint(summary: dict[str, Any], now: float) -> str | None:
    """Why a worker is not well, from its summary at `now` (seconds since the epoch); None where it is well."""
    if summary["state"] in ("restarting", "stopped"):
        return f"{summary['state']} ({summary['restarts']} restarts): {summary['last_error'] or 'no error'}"
    if summary["last_error"]:
        return str(summary["last_error"])
    if summary["stall_seconds"] is None:
        return None
    idle = now - max(summary["last_progress"] or 0.0, summary["began"])
    return f"{NO_PROGRESS} {idle:.0f} s" if idle > summary["stall_seconds"] else None


def complaints(found: Iterable[dict[str, Any]], now: float) -> dict[str, str]:
    """The workers that are not well, by name, with the reason."""
    return {summary["name"]: text for summary in found if (text := complaint(summary, now)) is not None}


def describe(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
