"""Ingests files of taxi trips into bronze.

Rows are streamed, so that memory is bounded. Each file is appended once, in one commit.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import polars_h3
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake

from city.lake.tables import open_table
from city.tables.schema import partition_by, schema
from city_assets.traffic.trip_tables import BRONZE_TRIPS
from city_assets.traffic.trips import month_file_of, scan_trips, to_utc

_RESOLUTION = 8
_BATCH = 200_000
_HASH_BYTES = 1 << 22


@dataclass(frozen=True)
class IngestedFile:
    """The result of ingesting a file.

    `rows` is the number of appended rows, 0 if the file was in bronze already. `replaced` is the number of rows of an
    earlier file of the same month, which it has replaced. `first` and `last` are the first and the last local day of
    its trips, and of those that it has replaced. Days that a wrong clock has made, outside the file's month, do not
    count.
    """

    file: str
    rows: int
    replaced: int = 0
    first: date | None = None
    last: date | None = None


def ingest(
    path: Path, lake: Path, timezone: str, progress: Callable[[int], None], zones: Path | None = None
) -> IngestedFile:
    """Appends a file's trips to bronze, unless a file of the same content is there already.

    An earlier file of the same month of the TLC (by its name, with any suffix) is replaced: the TLC publishes corrected
    files. `progress` is called with the number of rows so far. After a crash, bronze has either all rows of the file or
    none, and in the same way those that it replaces.

    Raises UnknownLayout, FileNotFoundError, ForeignTable.
    """
    rows = scan_trips(path, zones)
    table = open_table(lake / BRONZE_TRIPS.id, schema(BRONZE_TRIPS), partition_by(BRONZE_TRIPS))
    digest = fingerprint(path)
    content, month = Transaction(f"ingest/{digest}", 1), month_file_of(path.name)
    version = int(digest[:15], 16)
    known = table.transaction_version(f"ingest-month/{month}") if month else None
    if known == version or (known is None and table.transaction_version(content.app_id) is not None):
        return IngestedFile(path.name, 0)
    old = _replaced(table, month) if month else _Replaced()
    counted = _CountedBatches(shape(rows, path.name, timezone), progress, _is_plausible(month), old)
    transactions = [content, Transaction(f"ingest-month/{month}", version)] if month else [content]
    # The condition must be true for the new rows too.
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in {*old.files, path.name})
    options: dict[str, Any] = {"mode": "append"}
    if old.files:
        options = {"mode": "overwrite", "predicate": f"file IN ({names})"}
    write_deltalake(
        table,
        pa.RecordBatchReader.from_batches(counted.schema, iter(counted)),
        commit_properties=CommitProperties(app_transactions=transactions),
        writer_properties=WriterProperties(compression="ZSTD", compression_level=1),
        **options,
    )
    return IngestedFile(path.name, counted.rows, old.rows, counted.first, counted.last)


@dataclass(frozen=True)
class _Replaced:
    """The rows of earlier files of a month."""

    files: tuple[str, ...] = ()
    rows: int = 0
    first: date | None = None
    last: date | None = None


def _is_plausible(month: str | None) -> pl.Expr:
    """Returns the condition of the days that a file of a month can have, or a file without a month in its name."""
    day = pl.col("day")
    if month is None:
        return day.is_between(BRONZE_TRIPS.first_day, datetime.now(UTC).date())
    return day.dt.strftime("%Y-%m") == month[-len("2016-06") :]


def _replaced(table: DeltaTable, month: str) -> _Replaced:
    trips = pl.scan_delta(table)
    names = trips.select(pl.col("file").unique()).collect()["file"]
    files = tuple(name for name in names if month_file_of(name) == month)
    if not files:
        return _Replaced()
    day = pl.col("day").filter(_is_plausible(month))
    counted = trips.filter(pl.col("file").is_in(list(files))).select(pl.len(), day.min(), day.max().alias("last"))
    return _Replaced(files, *counted.collect().row(0))


def shape(trips: pl.LazyFrame, file: str, timezone: str) -> pl.LazyFrame:
    """Converts trips from the layout of `scan_trips` to the columns of bronze: UTC times, H3 cells, and the local day.

    The day is that of the published pickup, also where the clocks skip its time.
    """
    cells = {
        f"{end}_cell": pl.when(pl.col(f"{end}_latitude").is_between(-90, 90)).then(
            polars_h3.latlng_to_cell(f"{end}_latitude", f"{end}_longitude", _RESOLUTION, return_dtype=pl.String)
        )
        for end in ("pickup", "dropoff")
    }
    shaped = trips.with_columns(day=pl.col("pickup_at").dt.date(), file=pl.lit(file), **cells).with_row_index("row")
    columns = schema(BRONZE_TRIPS)
    return to_utc(shaped, timezone).select(pl.col(name).cast(kind) for name, kind in columns.items())


def fingerprint(path: Path) -> str:
    """Returns the BLAKE2b digest of a file's content, in hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()


class _CountedBatches:
    """Iterates over a frame's record batches, and counts their rows and days as they are read."""

    def __init__(
        self, frame: pl.LazyFrame, progress: Callable[[int], None], is_plausible: pl.Expr, old: _Replaced
    ) -> None:
        self._frame, self._progress, self._is_plausible = frame, progress, is_plausible
        self.schema = pl.DataFrame(schema=frame.collect_schema()).to_arrow().schema
        self.rows = 0
        self.first, self.last = old.first, old.last

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for part in self._frame.collect_batches(chunk_size=_BATCH, maintain_order=False, engine="streaming"):
            self.rows += part.height
            days = part.filter(self._is_plausible)["day"].unique().to_list()
            self.first = min([*days, *([self.first] if self.first else [])], default=None)
            self.last = max([*days, *([self.last] if self.last else [])], default=None)
            self._progress(self.rows)
            yield from part.to_arrow().cast(self.schema).to_batches()


def rows_in(lake: Path) -> int:
    """Returns the number of trips in bronze."""
    return int(DeltaTable(lake / BRONZE_TRIPS.id).count())
