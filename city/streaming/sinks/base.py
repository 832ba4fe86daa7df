"""What is derived from bronze: each sink in a thread of its own, at a position of its own.

Delta refuses a writer that has been fenced off; QuestDB and Kafka cannot. A copy of the stream that ends may still have
a request on its way, older than what its successor writes, so a sink begins only when its predecessor has let go of
the sink's lock, which a process does at the latest by ending.
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
from city.streaming.records import Batch, Offsets, before, behind
from city.streaming.windows import Changed, ContractWindows

log = logging.getLogger(__name__)

_QUEUED = 4  # batches held in memory for a sink that is slower than bronze; beyond it, it reads bronze
_IDLE_SECONDS = 0.5
_TURN_SECONDS = 0.1  # between two looks at whether the predecessor has ended
_CATCH_UP = 50_000  # offsets a partition in each batch that is read back from bronze


class Sink(ABC):
    """Applies batches, idempotently: after a crash it is given again what it may have applied already."""

    name: str
    prompt = False
    """Whether the promised latency (CITY_LATENCY_SECONDS) is about this sink."""
    recorded = False
    """Whether bronze's log keeps its position, for it has no better place."""

    @abstractmethod
    def open(self, recorded: Offsets) -> Offsets:
        """Connects; returns the position it has durably reached. `recorded` is what bronze's log says of it."""

    @abstractmethod
    def apply(self, rows: pl.DataFrame, start: Offsets, changed: Changed) -> None:
        """Applies rows of a batch that begins at `start`, durably: when it returns, they will not be given again.
        `changed` gives the windows that the batch has changed, and costs nothing where it is not called."""

    def idle(self) -> None:
        """Called a few times a second while nothing comes."""
        return

    @abstractmethod
    def close(self) -> None: ...


class SinkWorker:
    """Feeds a sink: from memory while it keeps up, from bronze when it has fallen behind.

    `windows` are the contract's, which the sinks that are in step share; `applied` is told of each batch that came from
    memory, after the sink has it.
    """

    def __init__(
        self,
        sink: Sink,
        bronze: BronzeStream,
        recorded: Offsets,
        stop: threading.Event,
        windows: ContractWindows,
        applied: Callable[[str, Batch], None] = lambda sink, batch: None,
    ) -> None:
        self.sink, self.name = sink, sink.name
        self.position: Offsets = dict(recorded)
        self.last_error: str | None = None
        self._bronze, self._recorded = bronze, recorded
        self._stop, self._drain = stop, threading.Event()
        self._windows, self._applied = windows, applied
        self._target: Offsets = dict(bronze.position)
        self._queue: queue.Queue[Batch] = queue.Queue(maxsize=_QUEUED)
        name = f"sink-{sink.name}-{bronze.contract.name}"
        # A predecessor is waited for, and a catch-up takes as long as it takes: both are said in `last_error`.
        self._worker = Worker(name, self._run, stop=stop, stall_seconds=float("inf"))

    def start(self) -> None:
        self._worker.start()

    def offer(self, batch: Batch) -> None:
        """Hands over a committed batch; never blocks."""
        self._target = self._target | batch.end
        try:
            self._queue.put_nowait(batch)
        except queue.Full:
            log.debug("%s is behind and will read bronze", self.name)

    def behind(self) -> int:
        """How many offsets bronze is ahead of the sink."""
        return sum(max(0, last - self.position.get(p, 0)) for p, last in self._target.items())

    def drain(self) -> None:
        """From now on it ends once it has applied what there is."""
        self._drain.set()

    def join(self, seconds: float) -> bool:
        """Waits for its end, at most `seconds`; whether it has come."""
        return self._worker.join(seconds)

    def _run(self, worker: Worker) -> None:
        backoff = Backoff(self._stop)
        with contextlib.suppress(Stopped):
            while not self._had_its_turn():
                backoff.wait()

    def _had_its_turn(self) -> bool:
        table = self._bronze.path
        try:
            with file_lock(table.with_name(f"{table.name}.{self.name}"), self._wait_for):
                self.last_error = None
                self._feed()
            return True
        except OSError as error:  # a disk that is full has no room for a lock either
            self.last_error = f"{self.name}: {error}"
            return False

    def _wait_for(self, process: str) -> None:
        self.last_error = f"{self.name}: process {process} from before still writes to it; it is waited for"
        if self._stop.wait(_TURN_SECONDS):
            raise Stopped

    def _feed(self) -> None:
        backoff = Backoff(self._stop)
        while not self._stop.is_set():
            try:
                self.position = self.sink.open(self._recorded) | {}
                self._follow(backoff)
                break
            except Stopped:
                break
            except Exception as error:  # whatever a server that is away makes its client raise
                self.last_error = f"{self.name}: {str(error).strip()[:300] or type(error).__name__}"
                log.warning("sink %s of %s: %s", self.name, self._bronze.contract.name, self.last_error)
                try:
                    backoff.wait()
                except Stopped:
                    break
        self._close()

    def _follow(self, backoff: Backoff) -> None:
        while not self._stop.is_set():
            batch = self._next()
            if batch is not None and all(self.position.get(p, 0) >= first for p, first in batch.start.items()):
                self._apply(batch, self._windows)
                self._applied(self.name, batch)
            elif behind(self.position, self._target):
                windows = contract_windows(self._bronze.contract, self._bronze, self.position)
                for caught in self._bronze.read(self.position, dict(self._target), _CATCH_UP):
                    self._apply(caught, windows)
                    if self._stop.is_set():
                        return
            elif batch is None:
                if self._drain.is_set():
                    return
                self.sink.idle()
            self.last_error = None
            self._worker.progress(batch.rows.height if batch is not None else 0)
            backoff.reset()

    def _next(self) -> Batch | None:
        try:
            return self._queue.get(timeout=0.05 if self._drain.is_set() else _IDLE_SECONDS)
        except queue.Empty:
            return None

    def _apply(self, batch: Batch, windows: ContractWindows) -> None:
        if behind(self.position, batch.end):
            self.sink.apply(batch.after(self.position), self.position, lambda: windows.changed(batch))
            self.position = self.position | {p: max(end, self.position.get(p, 0)) for p, end in batch.end.items()}
            self._recorded = self.position

    def _close(self) -> None:
        try:
            self.sink.close()
        except Exception as error:  # it ends either way
            log.debug("closing %s: %s", self.name, error)


def drain(workers: list[SinkWorker], seconds: float) -> None:
    """Lets all sinks apply what there is, side by side, for at most `seconds` together."""
    for worker in workers:
        worker.drain()
    ends = time.monotonic() + seconds
    for worker in workers:
        worker.join(max(0.0, ends - time.monotonic()))


def contract_windows(contract: Contract, bronze: BronzeStream, reached: Offsets | None = None) -> ContractWindows:
    """The contract's windows, over what bronze holds, for batches from `reached` on (from bronze's position)."""

    def earlier(first: datetime, until: datetime, below: Offsets) -> pl.DataFrame:
        time = pl.col(contract.event_time)
        return scan(bronze.path).filter((time >= first) & (time < until) & before(below)).collect()

    def newest() -> datetime | None:
        at = max(bronze.watermarks.values(), default=None)
        return pl.Series([at], dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))[0] if at is not None else None

    return ContractWindows(contract, earlier, newest, bronze.position if reached is None else reached)
