"""Cold storage: bronze beyond CITY_WARM_DAYS, sorted and compressed, a folder a year, on a disk or on S3."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake

from city.contracts.model import Contract
from city.contracts.schema import bronze_schema
from city.lake import bronze_path
from city.lake.retry import committed

YEAR = "year"


@dataclass(frozen=True)
class Archived:
    """How many rows went to cold storage, and how many were then deleted from bronze."""

    rows: int
    deleted: int
    before: datetime


def archive(contract: Contract, lake: Path, cold: str, keep: timedelta, now: datetime | None = None) -> Archived:
    """Moves whole days older than `keep`. A crash in between loses nothing and doubles nothing: what has been written
    is in cold storage's own log, and the next run only deletes it."""
    before = ((now or datetime.now(UTC)) - keep).replace(hour=0, minute=0, second=0, microsecond=0)
    path = bronze_path(lake, contract)
    if not DeltaTable.is_deltatable(str(path)):
        return Archived(0, 0, before)
    target = f"{cold.rstrip('/')}/{contract.name}"
    app, version = f"archive/{contract.topic}", int(before.timestamp())
    done = _reached(target, app)
    rows = 0
    if done is None or done < version:
        old = pl.scan_delta(str(path)).filter(pl.col(contract.event_time) < before)
        if done is not None:
            old = old.filter(pl.col(contract.event_time) >= datetime.fromtimestamp(done, UTC))
        found = old.select(bronze_schema(contract).keys()).sort(contract.key, contract.event_time).collect()
        rows = found.height
        if rows:
            _write(target, found.with_columns(pl.col(contract.event_time).dt.year().alias(YEAR)), app, version)
    if not rows and done is None:
        return Archived(0, 0, before)
    predicate = f"{contract.event_time} < '{before:%Y-%m-%dT%H:%M:%SZ}'"
    deleted = committed(path, lambda table: table.delete(predicate)["num_deleted_rows"])
    return Archived(rows, int(deleted or 0), before)


def _write(target: str, rows: pl.DataFrame, app: str, version: int) -> None:
    write_deltalake(
        target,
        rows,
        mode="append",
        partition_by=[YEAR],
        schema_mode="merge",
        commit_properties=CommitProperties(app_transactions=[Transaction(app, version)]),
        writer_properties=WriterProperties(compression="ZSTD", compression_level=9),
    )


def _reached(target: str, app: str) -> int | None:
    return DeltaTable(target).transaction_version(app) if DeltaTable.is_deltatable(target) else None
