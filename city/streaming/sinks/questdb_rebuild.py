"""Rebuilds a QuestDB table from bronze, while the stream writes to it and others read it.

A symbol column stores every text that it ever had. A deleted row, a dropped partition or TRUNCATE does not remove a
text from its files; only a new table is without it. The rebuild fills a new table beside the old one and then renames
it to the old name. So readers always find a table, and the stream always finds a position that is not far behind.

No table is dropped under the name that the stream writes to. The server keeps a writer for each connection and table.
It notices that the table was renamed, but not that it was dropped: it accepts the connection's next request and
discards the rows (questdb/questdb#5803). So a table that is in the way is renamed first.

A rebuild can be killed at any moment. It drops the old table, which has the suffix `_replaced`, as its last step. So
`must_be_finished` detects a rebuild that did not end, and the next rebuild finishes it.
"""

import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from city import questdb
from city.contracts import questdb as tables
from city.contracts.model import Contract, Window
from city.questdb import QuestDBServer
from city.streaming.bronze import BronzeStream
from city.streaming.records import Offsets, from_position
from city.streaming.sinks.questdb import QuestDBSink
from city.streaming.windows import compute

_HOUR = timedelta(hours=1)
_APPLY_SECONDS = 60.0
_TRIES = 10


def rebuild(server: QuestDBServer, contract: Contract, bronze: BronzeStream, window: Window | None = None) -> None:
    """Replaces the table of the contract's events, or of one of its windows, by a new table with the rows of bronze.

    The new table has the rows of the time span that QuestDB keeps. The caller holds a lock, so that only one rebuild of
    a table runs at a time. Raises as `questdb.execute` and the QuestDB client do; then it can be called again.
    """
    name = window.name if window else contract.name
    fresh, replaced = _rebuilt_name(name), _replaced_name(name)
    questdb.execute(server, f"DROP TABLE IF EXISTS {fresh}")
    if window:
        questdb.execute(server, tables.create_window(contract, replace(window, name=fresh)))
    else:
        questdb.execute(server, tables.create_events(replace(contract, name=fresh)))
    sink = QuestDBSink(contract, server, bronze)
    sink.connect()
    try:
        reached = _fill_table(sink, contract, bronze.path, window, fresh, {})
        _await_applied(server, fresh)
        _take_name(server, fresh, name, replaced)
        _fill_table(sink, contract, bronze.path, window, name, reached)  # rows that went to the old table meanwhile
        questdb.execute(server, f"DROP TABLE IF EXISTS {_discarded_name(name)}")
        questdb.execute(server, f"DROP TABLE IF EXISTS {replaced}")
    finally:
        sink.close()


def copies(server: QuestDBServer, name: str) -> list[str]:
    """Returns the existing tables that may have the table's rows: itself, and those of an unfinished rebuild."""
    names = (name, _rebuilt_name(name), _replaced_name(name), _discarded_name(name))
    return [table for table in names if _table_folders(server, table)]


def must_be_finished(server: QuestDBServer, name: str) -> bool:
    """Returns whether a rebuild of the table was interrupted, or the server itself created the table for a row.

    The server creates a table without deduplication and TTL when a row comes and no table exists.
    """
    rows = questdb.rows(server, f"SELECT dedup FROM tables() WHERE table_name = '{name}'")
    return any(table != name for table in copies(server, name)) or not all(dedup for (dedup,) in rows)


def is_symbol(server: QuestDBServer, folder: Path, name: str, column: str, text: str) -> bool:
    """Returns whether the files of the column's symbols contain the text.

    `folder` is the server's own folder of tables. Dropped tables are not searched, because the server deletes their
    files within a minute.
    """
    encoded = text.encode("utf-16-le")
    symbol = (len(encoded) // 2).to_bytes(4, "little") + encoded
    for table in _table_folders(server, name):
        for file in (folder / table).glob(f"{column}.c*"):
            with suppress(FileNotFoundError):  # the table was dropped meanwhile
                if symbol in file.read_bytes():
                    return True
    return False


def _table_folders(server: QuestDBServer, name: str) -> list[str]:
    """Returns the name of the table's folder; an empty list where there is no such table."""
    rows = questdb.rows(server, f"SELECT directoryName FROM tables() WHERE table_name = '{name}'")
    return [folder for (folder,) in rows]


def _rebuilt_name(name: str) -> str:
    return f"{name}_rebuilt"


def _replaced_name(name: str) -> str:
    return f"{name}_replaced"


def _discarded_name(name: str) -> str:
    return f"{name}_discarded"


def _fill_table(
    sink: QuestDBSink, contract: Contract, bronze: Path, window: Window | None, table: str, after: Offsets
) -> Offsets:
    """Sends the rows of bronze from the offsets on, or the windows of their hours, the newest hours first.

    Returns the next offset of each partition.
    """
    reached = dict(after)
    if not DeltaTable.is_deltatable(str(bronze)):
        return reached
    time_of = pl.col(contract.event_time)
    recent = pl.scan_delta(DeltaTable(bronze)).filter(time_of > datetime.now(UTC) - contract.ttl)
    new = recent.filter(from_position(after))
    hours = new.select(time_of.dt.truncate("1h").unique().alias("hour")).collect(engine="streaming")["hour"]
    for hour in hours.sort(descending=True):
        within = time_of.is_between(hour, hour + _HOUR, closed="left")
        if window:  # the windows of an hour are computed from all its rows
            rows = recent.filter(within).collect()
            sink.send_windows(window, compute(contract, window, rows), table)
        else:
            rows = new.filter(within).collect()
            sink.send_events(rows, table)
        for partition, offset in rows.group_by("_partition").agg(pl.col("_offset").max()).iter_rows():
            reached[partition] = max(offset + 1, reached.get(partition, 0))
    return reached


def _await_applied(server: QuestDBServer, table: str) -> None:
    """Waits until the sent rows can be read, up to a time limit. Beyond it the table is complete a little later."""
    deadline = time.monotonic() + _APPLY_SECONDS
    while time.monotonic() < deadline:
        rows = questdb.rows(server, f"SELECT writerTxn, sequencerTxn FROM wal_tables() WHERE name = '{table}'")
        if all(written >= sent for written, sent in rows):
            return
        time.sleep(0.1)


def _take_name(server: QuestDBServer, fresh: str, name: str, replaced: str) -> None:
    """Renames the old table to `replaced` and the fresh one to `name`.

    A row that the stream sends in between makes the server create a table with columns that it guesses. That table is
    renamed too, and discarded by the caller, because its rows are in bronze. So is the table that has the name when an
    interrupted rebuild has already renamed the old table.
    """
    if _table_folders(server, name) and not _table_folders(server, replaced):
        questdb.execute(server, f"RENAME TABLE {name} TO {replaced}")
    for tries_left in reversed(range(_TRIES)):
        try:
            questdb.execute(server, f"RENAME TABLE {fresh} TO {name}")
            return
        except questdb.QuestDBError:
            if not tries_left or not _table_folders(server, fresh):
                raise
            with suppress(questdb.QuestDBError):  # the server may be about to create it: the next attempt comes later
                questdb.execute(server, f"DROP TABLE IF EXISTS {_discarded_name(name)}")
                questdb.execute(server, f"RENAME TABLE {name} TO {_discarded_name(name)}")
                continue
            time.sleep(0.05)
