"""A QuestDB table that is made anew from bronze, while the stream writes to it and others read it.

A column of symbols keeps every text that it ever had: no deleted row, dropped partition or TRUNCATE takes one out of
its files. Only a new table is without it. The new one is filled beside the old one and takes its name, so readers
always find a table, and the stream a position that is not far behind.

A rebuild can be killed at any moment. The old table, under the name `_replaced`, is dropped last of all, so
`must_be_finished` knows of a rebuild that did not end, and the next one finishes it.
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
from city.streaming.bronze import BronzeStream
from city.streaming.records import Offsets, beyond
from city.streaming.sinks.questdb import QuestDBSink
from city.streaming.windows import compute

_HOUR = timedelta(hours=1)
_APPLY_SECONDS = 60.0
_TRIES = 10


def rebuild(address: str, contract: Contract, bronze: BronzeStream, window: Window | None = None) -> None:
    """Replaces the table of the contract's events, or of one of its windows, by one with what bronze has of the time
    that QuestDB keeps. One rebuild of a table at a time: the caller holds a lock.

    Raises as `questdb.execute` and the QuestDB client do; then it can be called again."""
    name = window.name if window else contract.name
    fresh, replaced = _fresh(name), _replaced(name)
    questdb.execute(address, f"DROP TABLE IF EXISTS {fresh}")
    if window:
        questdb.execute(address, tables.create_window(contract, replace(window, name=fresh)))
    else:
        questdb.execute(address, tables.create_events(replace(contract, name=fresh)))
    sink = QuestDBSink(contract, address, bronze)
    sink.connect()
    try:
        reached = _fill(sink, contract, bronze.path, window, fresh, {})
        _await_applied(address, fresh)
        _take_name(address, fresh, name, replaced)
        _fill(sink, contract, bronze.path, window, name, reached)  # what went to the old table meanwhile
        questdb.execute(address, f"DROP TABLE IF EXISTS {replaced}")
    finally:
        sink.close()


def copies(address: str, name: str) -> list[str]:
    """The tables that may have the table's rows: itself, and what a rebuild that is not finished has beside it. Only
    those that are there."""
    return [table for table in (name, _fresh(name), _replaced(name)) if _folders(address, table)]


def must_be_finished(address: str, name: str) -> bool:
    """Whether a rebuild of the table was broken off, or a row has made the table: the server guesses one without
    deduplication and TTL where a row comes and no table is there."""
    declared = questdb.rows(address, f"SELECT dedup FROM tables() WHERE table_name = '{name}'")
    return any(table != name for table in copies(address, name)) or not all(dedup for (dedup,) in declared)


def is_symbol(address: str, folder: Path, name: str, column: str, text: str) -> bool:
    """Whether the files of the column's symbols have the text; `folder` is the server's own folder of tables. Tables
    that were dropped are not looked into: the server deletes their files within a minute."""
    encoded = text.encode("utf-16-le")
    symbol = (len(encoded) // 2).to_bytes(4, "little") + encoded
    for table in _folders(address, name):
        for file in (folder / table).glob(f"{column}.c*"):
            with suppress(FileNotFoundError):  # the table was dropped meanwhile
                if symbol in file.read_bytes():
                    return True
    return False


def _folders(address: str, name: str) -> list[str]:
    """The name of the table's folder; none where there is no such table."""
    found = questdb.rows(address, f"SELECT directoryName FROM tables() WHERE table_name = '{name}'")
    return [folder for (folder,) in found]


def _fresh(name: str) -> str:
    return f"{name}_rebuilt"


def _replaced(name: str) -> str:
    return f"{name}_replaced"


def _fill(
    sink: QuestDBSink, contract: Contract, bronze: Path, window: Window | None, table: str, after: Offsets
) -> Offsets:
    """Sends the rows of bronze from the offsets on, or the windows of their hours, the newest hours first. Gives the
    offset of each partition that comes next."""
    reached = dict(after)
    if not DeltaTable.is_deltatable(str(bronze)):
        return reached
    time_of = pl.col(contract.event_time)
    kept = pl.scan_delta(DeltaTable(bronze)).filter(time_of > datetime.now(UTC) - contract.ttl)
    new = kept.filter(beyond(after))
    hours = new.select(time_of.dt.truncate("1h").unique().alias("hour")).collect(engine="streaming")["hour"]
    for hour in hours.sort(descending=True):
        within = time_of.is_between(hour, hour + _HOUR, closed="left")
        if window:  # an hour's windows are of all its rows
            rows = kept.filter(within).collect()
            sink.send_windows(window, compute(contract, window, rows), table)
        else:
            rows = new.filter(within).collect()
            sink.send_events(rows, table)
        for partition, offset in rows.group_by("_partition").agg(pl.col("_offset").max()).iter_rows():
            reached[partition] = max(offset + 1, reached.get(partition, 0))
    return reached


def _await_applied(address: str, table: str) -> None:
    """Waits until what was sent can be read, within bounds: else the table is whole a little later."""
    deadline = time.monotonic() + _APPLY_SECONDS
    while time.monotonic() < deadline:
        found = questdb.rows(address, f"SELECT writerTxn, sequencerTxn FROM wal_tables() WHERE name = '{table}'")
        if all(written >= sent for written, sent in found):
            return
        time.sleep(0.1)


def _take_name(address: str, fresh: str, name: str, replaced: str) -> None:
    """Renames both tables. A row that the stream sends in between makes the server create a table of columns that it
    guesses, which is dropped: its rows are in bronze. So is what has the name when a rebuild that was broken off has
    already renamed the old table."""
    if _folders(address, name) and not _folders(address, replaced):
        questdb.execute(address, f"RENAME TABLE {name} TO {replaced}")
    for left in reversed(range(_TRIES)):
        try:
            questdb.execute(address, f"RENAME TABLE {fresh} TO {name}")
            return
        except questdb.QuestDBError:
            if not left or not _folders(address, fresh):
                raise
            questdb.execute(address, f"DROP TABLE IF EXISTS {name}")
