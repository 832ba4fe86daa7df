"""Events and windows to QuestDB. Its own table says how far it came, and its keys make repeats harmless."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import polars as pl
from questdb import Sender, TimestampMicros, TimestampNanos

from city import questdb
from city.contracts import questdb as tables
from city.contracts.model import Contract, Window
from city.streaming.bronze import BronzeStream, scan
from city.streaming.records import Offsets
from city.streaming.sinks.base import Sink
from city.streaming.windows import Changed, compute

log = logging.getLogger(__name__)

# A flush may otherwise wait far beyond any limit (questdb/py-questdb-client#75); retries are the worker's.
_DEADLINE = "request_timeout=15000;retry_timeout=0;auto_flush=off;"
_SMALL_ROWS, _FIRST_FRAME_ROWS = 1_000, 20_000
"""Up to here rows are handed over one by one: the client takes whole frames only from pandas over HTTP, and to make one
costs as much as some hundred rows. The first frame also loads pandas and PyArrow, which takes 1.6 s and 80 MB for good:
only a backlog is worth that, not what has come in while the stream started."""


class QuestDBSink(Sink):
    """One request a batch has the windows and, after them, the rows they are made of.

    The position is read from the rows. Should a request be cut off between tables, the windows may be behind it, so
    those that may still change are sent again from bronze whenever the sink is opened. Where a batch has older ones
    too, its windows are a request of their own, before the rows.
    """

    name = "questdb"
    prompt = True
    _has_pandas: ClassVar[bool] = False
    """Whether a frame has been sent by this process."""

    def __init__(self, contract: Contract, address: str, bronze: BronzeStream) -> None:
        self._contract, self._address, self._bronze = contract, address, bronze
        self._columns = list(tables.columns(contract))
        self._symbols = tables.symbols(contract)
        self._sender: Sender | None = None
        self._newest: datetime | None = None
        """The newest event time that QuestDB has or is being sent."""

    def open(self, recorded: Offsets) -> Offsets:
        ensure_tables(self._address, self._contract)
        self.connect()
        self._send_open_windows()
        return applied(self._address, self._contract)

    def connect(self) -> None:
        """Connects without a look at the tables."""
        self.close()
        self._sender = Sender.from_conf(f"http::addr={self._address};{_DEADLINE}")
        self._sender.establish()

    def apply(self, rows: pl.DataFrame, start: Offsets, changed: Changed) -> None:
        found = changed() if self._contract.windows else {}
        for window in self._contract.windows:
            self._send_windows(window, found[window.name], window.name)
        newest = rows[self._contract.event_time].max()
        if isinstance(newest, datetime):
            self._newest = max(newest, self._newest or newest)
        if self._has_older_than_is_sent_again(found):
            self._flush()
        self._send_events(rows, self._contract.name)
        self._flush()

    def _has_older_than_is_sent_again(self, changed: Mapping[str, pl.DataFrame]) -> bool:
        """Whether some of a batch's windows would not be sent again by `open`: a backlog spans hours, and a partition
        may be hours behind another. Those must be there before the rows are, for the rows are the position."""
        if self._newest is None:
            return False
        ends = {w.name: self._newest - w.lateness - 2 * w.every for w in self._contract.windows}
        return any((changed[name]["window_start"] < end).any() for name, end in ends.items())

    def send_events(self, rows: pl.DataFrame, table: str) -> None:
        """Sends bronze rows, without their windows, to a table of the contract's columns."""
        self._send_events(rows, table)
        self._flush()

    def send_windows(self, window: Window, rows: pl.DataFrame, table: str) -> None:
        """Sends rows as `compute` gives them to a table of the window's columns."""
        self._send_windows(window, rows, table)
        self._flush()

    def close(self) -> None:
        if self._sender is not None:
            self._sender.close(flush=False)
            self._sender = None

    def _send_open_windows(self) -> None:
        newest = max(self._bronze.watermarks.values(), default=None)
        if newest is None or not self._contract.windows:
            return
        time_column = self._contract.event_time
        found = questdb.rows(self._address, f"SELECT cast(max({time_column}) AS LONG) FROM {self._contract.name}")
        last = found[0][0] if found else None  # none of a table without rows
        self._newest = None if last is None else datetime.fromtimestamp(int(last) / 1e6, UTC)
        # From where QuestDB stood: it may have been away for long.
        at = pl.lit(min(newest, newest if last is None else int(last))).cast(pl.Datetime("us", "UTC"))
        time = pl.col(self._contract.event_time)
        since = {w.name: w.lateness + 2 * w.every for w in self._contract.windows}
        rows = scan(self._bronze.path).filter(time >= at - max(since.values(), default=timedelta())).collect()
        for window in self._contract.windows:
            # The first of them may be cut by the filter: it is left out.
            whole = pl.col("window_start") >= at - since[window.name]
            self._send_windows(window, compute(self._contract, window, rows).filter(whole), window.name)
        self._flush()

    def _send_events(self, rows: pl.DataFrame, table: str) -> None:
        events = rows.rename({"_partition": "part", "_offset": "off"}).select(self._columns)
        self._send(table, events, self._symbols, self._contract.event_time)

    def _send_windows(self, window: Window, rows: pl.DataFrame, table: str) -> None:
        self._send(table, rows, [window.by], "window_start")

    def _send(self, table: str, frame: pl.DataFrame, symbols: list[str], at: str) -> None:
        """Puts the rows into the next request."""
        if frame.is_empty():
            return
        assert self._sender is not None
        if frame.height > (_SMALL_ROWS if QuestDBSink._has_pandas else _FIRST_FRAME_ROWS):
            QuestDBSink._has_pandas = True
            arrow = frame.to_pandas(use_pyarrow_extension_array=True)
            self._sender.dataframe(arrow, table_name=table, symbols=symbols, at=at)
            return
        row: dict[str, Any]
        times = {name for name, kind in frame.schema.items() if kind.is_temporal()}
        for row in frame.with_columns(pl.selectors.datetime().dt.epoch("us")).iter_rows(named=True):
            moment = TimestampNanos(row.pop(at) * 1_000)
            tags = {name: value for name in symbols if (value := row.pop(name)) is not None}
            fields = {
                name: TimestampMicros(value) if name in times else value
                for name, value in row.items()
                if value is not None
            }
            self._sender.row(table, symbols=tags, columns=fields, at=moment)

    def _flush(self) -> None:
        assert self._sender is not None
        self._sender.flush()


def ensure_tables(address: str, contract: Contract) -> None:
    """Creates the contract's tables where they are not, adds the columns that older ones lack, and resumes those that
    a crash has suspended."""
    _ensure(address, contract.name, tables.create_events(contract), tables.evolve_events(contract))
    for window in contract.windows:
        _ensure(address, window.name, tables.create_window(contract, window), tables.evolve_window(window))
    for table in questdb.resume_suspended(address, [contract.name, *(w.name for w in contract.windows)]):
        log.warning("QuestDB table %s was suspended and has been resumed", table)


def _ensure(address: str, table: str, create: str, evolve: list[str]) -> None:
    questdb.execute(address, create)
    held = {row[0] for row in questdb.rows(address, f"SHOW COLUMNS FROM {table}")}
    for statement in tables.missing(evolve, held):
        log.info("QuestDB table %s: %s", table, statement)
        questdb.execute(address, statement)


def applied(address: str, contract: Contract) -> Offsets:
    """The next offset of each partition, by what is visible in the contract's table."""
    found = questdb.rows(address, f"SELECT part, max(off) FROM {contract.name}")
    return {int(part): int(offset) + 1 for part, offset in found if part is not None}
