"""Moves old rows of bronze to cold storage, and opens the cold table that belongs to a version of bronze.

Cold storage has the rows beyond CITY_WARM_DAYS, sorted and compressed, in a folder a year, on a disk or on S3.

A move takes effect in one commit, although it changes two tables. It first writes the rows to cold storage, where no
reader sees them yet. Then one commit to bronze deletes exactly these rows and records the version of the cold table
that has them. `open_matching` opens that version. After a crash, or when late rows come meanwhile, the next run undoes
what was written without that commit.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import narwhals as nw
import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError
from deltalake.schema import Schema
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from city.contracts.model import Contract
from city.contracts.schema import bronze_schema
from city.file_lock import file_lock
from city.lake import bronze_path
from city.lake.location import Location
from city.s3 import is_s3_error
from city.tables.model import Frame

YEAR = "year"
_DAY = timedelta(days=1)
_UNDONE_HOURS = 24
"""The files of interrupted moves are deleted after this."""


@dataclass(frozen=True)
class ArchiveResult:
    """The result of a move: the number of rows in cold storage, and of rows deleted from bronze, which are the same.

    All rows are older than `before`.
    """

    rows: int
    deleted: int
    before: datetime


def archive(
    contract: Contract, lake: Path, cold: Location, keep: timedelta, now: datetime | None = None
) -> ArchiveResult:
    """Moves the rows of whole UTC days older than `keep` to cold storage, late rows too.

    When a row is appended to bronze meanwhile, or bronze is compacted, the move starts again. Raises DeltaError where
    that happens twenty times, and ColdStorageError where S3 refuses it or does not answer.
    """
    before = ((now or datetime.now(UTC)) - keep).replace(hour=0, minute=0, second=0, microsecond=0)
    path = bronze_path(lake, contract)
    if not DeltaTable.is_deltatable(str(path)):
        return ArchiveResult(0, 0, before)
    with archive_lock(lake, contract), cold.explained():
        return _move_until_done(contract, path, cold, before)


def open_matching(bronze: DeltaTable, contract: Contract, cold: Location) -> DeltaTable | None:
    """Opens the cold table at the version that belongs to this version of bronze; None where no row was archived.

    Raises FileNotFoundError where bronze's rows were archived to another place than `cold`.
    """
    target = cold / contract.name
    version = bronze.transaction_version(_app_id(contract, "version"))
    if version is None:
        return target.open() if _has_old_archive(contract, target) else None
    table = _open_cold(contract, target)
    return table if _move_number(table, contract) == _move_number(bronze, contract) else target.open(version)


def border(bronze: DeltaTable, contract: Contract) -> datetime | None:
    """Returns the end of the archive: only rows before it may be in cold storage. None where it is not recorded."""
    return _read_time(bronze, contract, "before")


def begin(bronze: DeltaTable, contract: Contract) -> datetime | None:
    """Returns the time of the earliest archived event, from bronze's log; None where it is not recorded."""
    return _read_time(bronze, contract, "first")


def archive_lock(lake: Path, contract: Contract) -> AbstractContextManager[None]:
    """Holds the lock for moves and rewrites of a contract's archived rows."""
    path = bronze_path(lake, contract)
    return file_lock(path.with_name(f"{path.name}.archive"))


def recover(bronze: DeltaTable, contract: Contract, cold: Location) -> DeltaTable | None:
    """Opens the newest cold table and removes the rows of an interrupted move; None where there is no table.

    The caller holds the lock (`archive_lock`). Raises FileNotFoundError as `open_matching` does.
    """
    target = cold / contract.name
    version = bronze.transaction_version(_app_id(contract, "version"))
    if version is None and not target.exists():
        return None
    table = _open_cold(contract, target)
    if _move_number(table, contract) != (moves := _move_number(bronze, contract)):
        table.restore(version or 0, commit_properties=_commit_properties(contract, moves=moves))
        target.open().vacuum(_UNDONE_HOURS, dry_run=False, enforce_retention_duration=False)
        table = target.open()
    return table


def record(bronze: DeltaTable, table: DeltaTable, contract: Contract) -> None:
    """Records this version of the cold table in bronze's log, after a change that was not a move."""
    marks = _commit_properties(contract, version=table.version(), moves=_move_number(table, contract))
    bronze.create_write_transaction([], "append", bronze.schema(), commit_properties=marks)


def append_archived(warm: Frame, archived: Frame) -> Frame:
    """Concatenates both frames, in the columns of the warm rows.

    A column that the contract got after the other rows were archived is null in them.
    """
    kinds, names = warm.collect_schema(), archived.collect_schema().names()
    columns = (nw.col(n) if n in names else nw.lit(None).cast(kind).alias(n) for n, kind in kinds.items())
    return nw.concat([warm, archived.select(*columns)])


@retry(
    retry=retry_if_exception(lambda error: isinstance(error, DeltaError) and not is_s3_error(error)),
    wait=wait_random_exponential(multiplier=0.05, max=3.2),
    stop=stop_after_attempt(20),
    reraise=True,
)
def _move_until_done(contract: Contract, path: Path, cold: Location, before: datetime) -> ArchiveResult:
    """Moves the rows, and starts again where bronze has changed meanwhile."""
    return _move_rows(contract, DeltaTable(path), cold, before)


def _move_rows(contract: Contract, bronze: DeltaTable, cold: Location, before: datetime) -> ArchiveResult:
    time = pl.col(contract.event_time)
    old = pl.scan_delta(bronze).filter(time < before)
    by_day = old.group_by(time.dt.truncate("1d").alias("day")).agg(time.min().alias("first")).sort("day")
    days = by_day.collect(engine="streaming")
    if days.is_empty():
        return ArchiveResult(0, 0, before)
    table = recover(bronze, contract, cold) or _create_table(contract, cold)
    if bronze.transaction_version(_app_id(contract, "version")) != table.version():
        # `open_matching` and `recover` return to this version if the move is interrupted. Rows may have come, so the
        # move reads bronze again.
        record(bronze, table, contract)
        return _move_rows(contract, DeltaTable(bronze.table_uri), cold, before)
    move = _move_number(table, contract) + 1
    rows = sum(_write_rows(table, contract, part, move) for part in _split_by_day(old, contract, days["day"].to_list()))
    firsts: list[datetime] = days["first"].to_list()
    first = min([*firsts, begin(bronze, contract) or firsts[0]])
    last = max(before, border(bronze, contract) or before)
    marks = _commit_properties(
        contract, moves=move, version=table.version(), first=_seconds(first), before=_seconds(last)
    )
    # The delete is based on the version that was read: Delta refuses it where a matching row has come since.
    predicate = f"{contract.event_time} < '{before:%Y-%m-%dT%H:%M:%SZ}'"
    deleted = int(bronze.delete(predicate, commit_properties=marks)["num_deleted_rows"] or 0)
    return ArchiveResult(rows, deleted, before)


def _split_by_day(old: pl.LazyFrame, contract: Contract, days: list[datetime]) -> Iterator[pl.DataFrame]:
    """Yields the old rows day by day. After CITY_WARM_DAYS is lowered there may be many old rows."""
    time = pl.col(contract.event_time)
    for day in days:
        rows = old.filter(time >= day, time < day + _DAY).select(bronze_schema(contract).keys())
        yield rows.sort(contract.key, contract.event_time).collect()


def _write_rows(table: DeltaTable, contract: Contract, rows: pl.DataFrame, move: int) -> int:
    write_deltalake(
        table,
        rows.with_columns(pl.col(contract.event_time).dt.year().alias(YEAR)),
        mode="append",
        schema_mode="merge",
        commit_properties=_commit_properties(contract, moves=move),
        writer_properties=WriterProperties(compression="ZSTD", compression_level=9),
    )
    return rows.height


def _create_table(contract: Contract, cold: Location) -> DeltaTable:
    schema = Schema.from_arrow(pl.Schema(bronze_schema(contract) | {YEAR: pl.Int32()}))
    target = cold / contract.name
    return DeltaTable.create(target.uri, schema=schema, partition_by=[YEAR], storage_options=target.options)


def _open_cold(contract: Contract, target: Location) -> DeltaTable:
    if not target.exists():
        raise FileNotFoundError(
            f"the archived rows of {contract.name} are not at {target}; point CITY_COLD at the folder that has them"
        )
    return target.open()


def _has_old_archive(contract: Contract, target: Location) -> bool:
    """Returns whether an earlier version filled cold storage and recorded no border in bronze's log.

    All rows of such a cold table count.
    """
    if not target.exists():
        return False
    return target.open().transaction_version(f"archive/{contract.topic}") is not None


def _move_number(table: DeltaTable, contract: Contract) -> int:
    """Returns the number of the last move. Both tables record it."""
    return table.transaction_version(_app_id(contract, "moves")) or 0


def _read_time(bronze: DeltaTable, contract: Contract, name: str) -> datetime | None:
    seconds = bronze.transaction_version(_app_id(contract, name))
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _commit_properties(contract: Contract, **values: int) -> CommitProperties:
    return CommitProperties(app_transactions=[Transaction(_app_id(contract, name), at) for name, at in values.items()])


def _app_id(contract: Contract, name: str) -> str:
    """Returns the application id of a transaction in the Delta log."""
    return f"archive/{contract.topic}/{name}"
