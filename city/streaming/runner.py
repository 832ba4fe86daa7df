"""Runs the stream as a process of its own: at once, or after the process that streams now."""

import logging
import os
import threading
import time
from collections.abc import Sequence

import psutil

from city.contracts.model import Contract
from city.settings import Settings
from city.stack.history_progress import is_recent_missing
from city.stack.part import CannotStart
from city.stack.state import STREAM, process_of, read_json
from city.streaming.job import StreamJob
from city.streaming.table_writer import Fenced

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_BEGINNING_SECONDS, _BEGINNING_LOOK_SECONDS = 20.0, 0.1
_SUCCESSOR_SECONDS = 30.0
"""A process that has fenced this one off writes its first report within this time."""


class StreamRunner:
    """Runs the stream of the given contracts in the main thread. A signal handler may call `stop`."""

    def __init__(self, contracts: Sequence[Contract], config: Settings) -> None:
        self._contracts, self._config = contracts, config
        self._stop = threading.Event()
        self._job: StreamJob | None = None

    def stop(self) -> None:
        """Ends the stream, or the wait for another one."""
        self._stop.set()
        if self._job is not None:
            self._job.stop.set()

    def run(self, take_over: bool = False) -> None:
        """Streams until `stop`. With `take_over`, the process that streams now is fenced off and ends.

        Without it, raises CannotStart where a process streams.
        """
        if not take_over and (process := self._other_stream()) is not None:
            raise CannotStart(
                f"a stream runs already (pid {process.pid}): end it first, that of a running city by `city down`. Or "
                "use --take-over: then the other one stops, with all its domains"
            )
        self._run_job()

    def run_in_turn(self) -> None:
        """Streams until `stop`, whenever no other process does.

        A process that takes over is not fenced off in return. This one waits for its end, and then continues.
        """
        self._await_beginning()
        self._await_other(0.0)
        while not self._stop.is_set():
            try:
                self._run_job()
                return
            except Fenced as error:
                log.warning("another stream has taken over, and its end is waited for: %s", error)
                self._await_other(_SUCCESSOR_SECONDS)

    def _run_job(self) -> None:
        self._job = StreamJob(self._contracts, self._config)
        if not self._stop.is_set():
            self._job.run()

    def _await_beginning(self) -> None:
        """Waits until Kafka accepts connections and the newest part of a history is made. It does not wait for long:
        the stream can do without both."""
        deadline = time.monotonic() + _BEGINNING_SECONDS
        while time.monotonic() < deadline and not self._stop.wait(_BEGINNING_LOOK_SECONDS):
            if self._config.kafka.listens() and not is_recent_missing(self._config):
                return

    def _await_other(self, seconds: float) -> None:
        """Waits until no other process streams. Waits `seconds` for the first report of one that has just begun."""
        deadline, known = time.monotonic() + seconds, 0
        while not self._stop.is_set():
            other = self._other_stream()
            if other is None and (known or time.monotonic() >= deadline):
                return
            if other is not None and other.pid != known:
                known = other.pid
                log.info("process %d streams: its end is waited for", known)
            self._stop.wait(_LOOK_SECONDS)

    def _other_stream(self) -> psutil.Process | None:
        process = process_of(read_json(self._config, STREAM))
        return None if process is None or process.pid == os.getpid() else process
