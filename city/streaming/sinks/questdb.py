"""Writes events and windows to QuestDB.

The sink reads its position from its own table. The table's deduplication keys make repeated rows harmless.
"""

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import polars as pl
from questdb import Sender, TimestampMicros, TimestampNanos

from city import questdb
from city.contracts import questdb as tables
from city.contracts.model import Contract, Window
from city.questdb import QuestDBServer
from city.streaming.bronze import BronzeStream, scan
from city.streaming.records import Offsets
from city.streaming.sinks.base import Sink
from city.streaming.windows import Changed, compute

log = logging.getLogger(__name__)

# Without the limit a flush may wait very long (questdb/py-questdb-client#75). The worker does the retries.
_DEADLINE = "request_timeout=15000;retry_timeout=0;auto_flush=off;"
_SMALL_ROWS, _FIRST_FRAME_ROWS = 1_000, 20_000
"""Up to this number of rows the sink passes rows to the client one by one. Over HTTP the client accepts whole frames
only from pandas, and the conversion costs as much as some hundred rows. The first frame also loads pandas and PyArrow,
which takes 1.6 s, and 80 MB of memory permanently. Only a backlog is worth that, not the rows that came while the
stream started."""


_LOOK_SECONDS = 30.0
"""The time between two looks for suspended tables. QuestDB suspends a table, such as on a full disk, after it has
acknowledged the rows, so no request reports it."""


class QuestDBSink(Sink):
    """Sends one request for each batch: the windows and, after them, the rows that they were computed from.

    The position is read from the rows. A request may be cut off between two tables, and the windows may then be behind
    the position. So the sink sends the windows that may still change again from bronze whenever it is opened. Where a
    batch has older windows too, its windows go in a request of their own, before the rows.
    """

    name = "questdb"
    prompt = True
    _has_pandas: ClassVar[bool] = False
    """Whether this process has sent a frame, and so has loaded pandas."""

    def __init__(self, contract: Contract, server: QuestDBServer, bronze: BronzeStream) -> None:
        self._contract, self._server, self._bronze = contract, server, bronze
        self._columns = list(tables.columns(contract))
        self._symbols = tables.symbols(contract)
        self._sender: Sender | None = None
        self._looked_at = time.monotonic()
        self._newest: datetime | None = None
        """The newest event time that QuestDB has, or that is on its way to it."""

    def open(self, recorded: Offsets) -> Offsets:
        """Creates the tables, connects, and sends the open windows again. Returns the position of the table."""
        ensure_tables(self._server, self._contract)
        self.connect()
        self._send_open_windows()
        return applied_offsets(self._server, self._contract)

    def connect(self) -> None:
        """Connects without a check of the tables."""
        self.close()
        self._sender = Sender.from_conf(self._server.sender_conf(_DEADLINE))
        self._sender.establish()  # type: ignore[no-untyped-call]  # the package has types, but not of this

    def apply(self, rows: pl.DataFrame, start: Offsets, changed: Changed) -> None:
        """Sends the changed windows and the batch's rows."""
        windows = changed() if self._contract.windows else {}
        for window in self._contract.windows:
            self._send_windows(window, windows[window.name], window.name)
        newest = rows[self._contract.event_time].max()
        if isinstance(newest, datetime):
            self._newest = max(newest, self._newest or newest)
        if self._has_closed_windows(windows):
            self._flush()
        self._send_events(rows, self._contract.name)
        self._flush()
        if time.monotonic() > self._looked_at + _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            resume_tables(self._server, self._contract)

    def _has_closed_windows(self, changed: Mapping[str, pl.DataFrame]) -> bool:
        """Returns whether a batch has windows that `open` does not send again.

        A backlog spans hours, and a partition may be hours behind another. QuestDB must have these windows before the
        rows, because the position is read from the rows.
        """
        if self._newest is None:
            return False
        ends = {w.name: self._newest - w.lateness - 2 * w.every for w in self._contract.windows}
        return any((changed[name]["window_start"] < end).any() for name, end in ends.items())

    def send_events(self, rows: pl.DataFrame, table: str) -> None:
        """Sends bronze rows, without their windows, to a table of the contract's columns."""
        self._send_events(rows, table)
        self._flush()

    def send_windows(self, window: Window, rows: pl.DataFrame, table: str) -> None:
        """Sends rows in the form of `compute` to a table of the window's columns."""
        self._send_windows(window, rows, table)
        self._flush()

    def close(self) -> None:
        """Disconnects without a flush."""
        if self._sender is not None:
            self._sender.close(flush=False)
            self._sender = None

    def _send_open_windows(self) -> None:
        newest = max(self._bronze.watermarks.values(), default=None)
        if newest is None or not self._contract.windows:
            return
        time_column = self._contract.event_time
        result = questdb.rows(self._server, f"SELECT cast(max({time_column}) AS LONG) FROM {self._contract.name}")
        last = result[0][0] if result else None  # a table without rows has no newest time
        self._newest = None if last is None else datetime.fromtimestamp(int(last) / 1e6, UTC)
        # The windows start at QuestDB's own newest time, because QuestDB may have been away for long.
        at = pl.lit(min(newest, newest if last is None else int(last))).cast(pl.Datetime("us", "UTC"))
        time = pl.col(self._contract.event_time)
        since = {w.name: w.lateness + 2 * w.every for w in self._contract.windows}
        rows = scan(self._bronze.path).filter(time >= at - max(since.values(), default=timedelta())).collect()
        for window in self._contract.windows:
            # The filter may cut the first window, so that one is left out.
            whole = pl.col("window_start") >= at - since[window.name]
            self._send_windows(window, compute(self._contract, window, rows).filter(whole), window.name)
        self._flush()

    def _send_events(self, rows: pl.DataFrame, table: str) -> None:
        events = rows.rename({"_partition": "part", "_offset": "off"}).select(self._columns)
        self._send_frame(table, events, self._symbols, self._contract.event_time)

    def _send_windows(self, window: Window, rows: pl.DataFrame, table: str) -> None:
        self._send_frame(table, rows, [window.by], "window_start")

    def _send_frame(self, table: str, frame: pl.DataFrame, symbols: list[str], at: str) -> None:
        """Adds the rows to the next request."""
        if frame.is_empty():
            return
        assert self._sender is not None
        if frame.height > (_SMALL_ROWS if QuestDBSink._has_pandas else _FIRST_FRAME_ROWS):
            QuestDBSink._has_pandas = True
            arrow = frame.to_pandas(use_pyarrow_extension_array=True)
            self._sender.dataframe(arrow, table_name=table, symbols=symbols, at=at)
            return
        times = {name for name, kind in frame.schema.items() if kind.is_temporal()}
        for row in frame.with_columns(pl.selectors.datetime().dt.epoch("us")).iter_rows(named=True):
            timestamp = TimestampNanos(row.pop(at) * 1_000)
            tags = {name: value for name in symbols if (value := row.pop(name)) is not None}
            fields = {
                name: TimestampMicros(value) if name in times else value
                for name, value in row.items()
                if value is not None
            }
            self._sender.row(table, symbols=tags, columns=fields, at=timestamp)

    def _flush(self) -> None:
        assert self._sender is not None
        self._sender.flush()


def ensure_tables(server: QuestDBServer, contract: Contract) -> None:
    """Creates the contract's missing tables, adds missing columns, and resumes the tables that a crash has suspended.

    Raises as `questdb.execute` does.
    """
    _ensure_table(server, contract.name, tables.create_events(contract), tables.evolve_events(contract))
    for window in contract.windows:
        _ensure_table(server, window.name, tables.create_window(contract, window), tables.evolve_window(window))
    resume_tables(server, contract)


def resume_tables(server: QuestDBServer, contract: Contract) -> None:
    """Resumes the contract's tables that a crash or a full disk has suspended."""
    for table in questdb.resume_suspended(server, tables.table_names(contract)):
        log.warning("QuestDB table %s was suspended and has been resumed", table)


def _ensure_table(server: QuestDBServer, table: str, create: str, evolve: list[str]) -> None:
    questdb.execute(server, create)
    columns = {row[0] for row in questdb.rows(server, f"SHOW COLUMNS FROM {table}")}
    for statement in tables.missing(evolve, columns):
        log.info("QuestDB table %s: %s", table, statement)
        questdb.execute(server, statement)


def applied_offsets(server: QuestDBServer, contract: Contract) -> Offsets:
    """Returns the next offset of each partition, from the visible rows of the contract's table.

    A partition of which the table has history alone, with negative offsets, begins with its first message.
    """
    rows = questdb.rows(server, f"SELECT part, max(off) FROM {contract.name}")
    return {int(part): max(0, int(offset) + 1) for part, offset in rows if part is not None}
