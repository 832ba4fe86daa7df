"""Runs each sink in a thread of its own, at a position of its own. A sink writes data that is derived from bronze.

Delta refuses a writer that has been fenced; QuestDB and Kafka cannot. A copy of the stream that ends may still have a
request on its way that is older than what its successor writes. So a sink starts only when its predecessor has released
the sink's lock. A process releases its locks at the latest when it ends.
"""

import contextlib
import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime

import polars as pl

from city.contracts.model import Contract
from city.file_lock import file_lock
from city.stack.backoff import Backoff, Stopped
from city.stack.worker import Worker
from city.streaming.bronze import BronzeStream, scan
from city.streaming.records import Batch, Offsets, below_position, is_behind
from city.streaming.windows import Changed, ContractWindows

log = logging.getLogger(__name__)

_QUEUED = 4  # batches in memory for a sink that is slower than bronze; a sink that is further behind reads bronze
_IDLE_SECONDS = 0.5
_TURN_SECONDS = 0.1  # between two checks whether the predecessor has ended
_CATCH_UP = 50_000  # offsets a partition in each batch that is read back from bronze


class Sink(ABC):
    """Applies batches idempotently. After a crash a sink receives again rows that it may have applied already."""

    name: str
    prompt = False
    """Whether the promised latency (CITY_LATENCY_SECONDS) applies to this sink."""
    recorded = False
    """Whether bronze's log stores the sink's position, because the sink has no better place for it."""

    @abstractmethod
    def open(self, recorded: Offsets) -> Offsets:
        """Connects, and returns the position that the sink has durably reached.

        `recorded` is the sink's position in bronze's log.
        """

    @abstractmethod
    def apply(self, rows: pl.DataFrame, start: Offsets, changed: Changed) -> None:
        """Applies rows of a batch that begins at `start`, durably. After the return they do not come again.

        `changed` returns the windows that the batch has changed. It costs nothing where it is not called.
        """

    def idle(self) -> None:
        """Does periodic work. The worker calls it a few times a second while no batch comes."""
        return

    @abstractmethod
    def close(self) -> None:
        """Disconnects. A sink can be opened again after it."""


class SinkWorker:
    """Feeds a sink from memory while it keeps up, and from bronze when it has fallen behind.

    `windows` are the contract's windows, which the sinks at the same batch share. The worker calls `on_applied` with
    each batch from memory after the sink has applied it.
    """

    def __init__(
        self,
        sink: Sink,
        bronze: BronzeStream,
        recorded: Offsets,
        stop: threading.Event,
        windows: ContractWindows,
        on_applied: Callable[[str, Batch], None] = lambda sink, batch: None,
    ) -> None:
        self.sink, self.name = sink, sink.name
        self.position: Offsets = dict(recorded)
        self.last_error: str | None = None
        self._bronze, self._recorded = bronze, recorded
        self._stop, self._drain = stop, threading.Event()
        self._windows, self._on_applied = windows, on_applied
        self._target: Offsets = dict(bronze.position)
        self._queue: queue.Queue[Batch] = queue.Queue(maxsize=_QUEUED)
        name = f"sink-{sink.name}-{bronze.contract.name}"
        # Neither the wait for a predecessor nor a catch-up has a time limit. `last_error` reports both.
        self._worker = Worker(name, self._run, stop=stop, stall_seconds=float("inf"))

    def start(self) -> None:
        """Starts the sink's thread."""
        self._worker.start()

    def offer(self, batch: Batch) -> None:
        """Puts a committed batch into the queue. Never blocks."""
        self._target = self._target | batch.end
        try:
            self._queue.put_nowait(batch)
        except queue.Full:
            log.debug("%s is behind and will read bronze", self.name)

    def behind(self) -> int:
        """Returns how many offsets bronze is ahead of the sink."""
        return sum(max(0, last - self.position.get(p, 0)) for p, last in self._target.items())

    def drain(self) -> None:
        """Makes the worker end once it has applied all committed batches."""
        self._drain.set()

    def join(self, seconds: float) -> bool:
        """Waits at most `seconds` for the worker to end. Returns whether it has ended."""
        return self._worker.join(seconds)

    def _run(self, worker: Worker) -> None:
        backoff = Backoff(self._stop)
        with contextlib.suppress(Stopped):
            while not self._feed_alone():
                backoff.wait()

    def _feed_alone(self) -> bool:
        """Feeds the sink under its lock. Returns False where the lock cannot be taken."""
        table = self._bronze.path
        try:
            with file_lock(table.with_name(f"{table.name}.{self.name}"), self._wait_for_predecessor):
                self.last_error = None
                self._feed_sink()
            return True
        except OSError as error:  # a full disk has no room for a lock either
            self.last_error = f"{self.name}: {error}"
            return False

    def _wait_for_predecessor(self, process: str) -> None:
        self.last_error = f"{self.name}: process {process} from before still writes to it; it is waited for"
        if self._stop.wait(_TURN_SECONDS):
            raise Stopped

    def _feed_sink(self) -> None:
        backoff = Backoff(self._stop)
        while not self._stop.is_set():
            try:
                self.position = self.sink.open(self._recorded) | {}
                self._follow_bronze(backoff)
                break
            except Stopped:
                break
            except Exception as error:  # clients raise errors of many types when their server is unavailable
                self.last_error = f"{self.name}: {str(error).strip()[:300] or type(error).__name__}"
                log.warning("sink %s of %s: %s", self.name, self._bronze.contract.name, self.last_error)
                try:
                    backoff.wait()
                except Stopped:
                    break
        self._close_sink()

    def _follow_bronze(self, backoff: Backoff) -> None:
        while not self._stop.is_set():
            batch = self._next_batch()
            if batch is not None and all(self.position.get(p, 0) >= first for p, first in batch.start.items()):
                self._apply_batch(batch, self._windows)
                self._on_applied(self.name, batch)
            elif is_behind(self.position, self._target):
                windows = contract_windows(self._bronze.contract, self._bronze, self.position)
                for missed in self._bronze.read(self.position, dict(self._target), _CATCH_UP):
                    self._apply_batch(missed, windows)
                    if self._stop.is_set():
                        return
            elif batch is None:
                if self._drain.is_set():
                    return
                self.sink.idle()
            self.last_error = None
            self._worker.progress(batch.rows.height if batch is not None else 0)
            backoff.reset()

    def _next_batch(self) -> Batch | None:
        try:
            return self._queue.get(timeout=0.05 if self._drain.is_set() else _IDLE_SECONDS)
        except queue.Empty:
            return None

    def _apply_batch(self, batch: Batch, windows: ContractWindows) -> None:
        if is_behind(self.position, batch.end):
            self.sink.apply(batch.rows_after(self.position), self.position, lambda: windows.changed(batch))
            self.position = self.position | {p: max(end, self.position.get(p, 0)) for p, end in batch.end.items()}
            self._recorded = self.position

    def _close_sink(self) -> None:
        try:
            self.sink.close()
        except Exception as error:  # the worker ends in any case
            log.debug("closing %s: %s", self.name, error)


def drain(workers: list[SinkWorker], seconds: float) -> None:
    """Lets all sinks apply the committed batches in parallel, for at most `seconds` in total."""
    for worker in workers:
        worker.drain()
    ends = time.monotonic() + seconds
    for worker in workers:
        worker.join(max(0.0, ends - time.monotonic()))


def contract_windows(contract: Contract, bronze: BronzeStream, reached: Offsets | None = None) -> ContractWindows:
    """Creates the contract's windows over bronze, for batches from `reached` on (by default bronze's position)."""

    def earlier(first: datetime, until: datetime, below: Offsets) -> pl.DataFrame:
        time = pl.col(contract.event_time)
        return scan(bronze.path).filter((time >= first) & (time < until) & below_position(below)).collect()

    def newest() -> datetime | None:
        at = max(bronze.watermarks.values(), default=None)
        return pl.Series([at], dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))[0] if at is not None else None

    return ContractWindows(contract, earlier, newest, bronze.position if reached is None else reached)
