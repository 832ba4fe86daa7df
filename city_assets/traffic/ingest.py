"""Months of taxi trips, straight into bronze: streamed, so that memory is bounded; each file once, in one commit."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import polars_h3
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake

from city.lake.tables import open_table
from city.tables.schema import partition_by, schema
from city_assets.traffic.tables import BRONZE_TRIPS
from city_assets.traffic.trips import scan_trips

_RESOLUTION = 8
_BATCH = 200_000
_HASH_BYTES = 1 << 22


@dataclass(frozen=True)
class Ingested:
    """What became of a file: its rows in bronze, or 0 where they were there already."""

    file: str
    rows: int
    first: object = None
    last: object = None


def ingest(path: Path, lake: Path, timezone: str, tell: Callable[[int], None], zones: Path | None = None) -> Ingested:
    """Appends a file's trips to bronze, unless a file of the same content is there. `tell` is given the rows so far.

    A crash leaves either all of the file or nothing. Raises UnknownLayout, FileNotFoundError, ForeignTable.
    """
    rows = scan_trips(path, zones)
    table = open_table(lake / BRONZE_TRIPS.id, schema(BRONZE_TRIPS), partition_by(BRONZE_TRIPS))
    app = f"ingest/{fingerprint(path)}"
    if table.transaction_version(app) is not None:
        return Ingested(path.name, 0)
    counted = _Counted(shape(rows, path.name, timezone), tell)
    write_deltalake(
        table,
        pa.RecordBatchReader.from_batches(counted.schema, iter(counted)),
        mode="append",
        commit_properties=CommitProperties(app_transactions=[Transaction(app, 1)]),
        writer_properties=WriterProperties(compression="ZSTD", compression_level=1),
    )
    return Ingested(path.name, counted.rows, counted.first, counted.last)


def shape(trips: pl.LazyFrame, file: str, timezone: str) -> pl.LazyFrame:
    """Trips as `scan_trips` gives them, in the columns of bronze: times in UTC, cells, and the local day.

    Of an hour that the clocks show twice, the first is meant; a time that they skip is null.
    """
    local = {name: pl.col(name).dt.cast_time_unit("us") for name in ("pickup_at", "dropoff_at")}
    utc = {
        name: time.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
        for name, time in local.items()
    }
    cells = {
        f"{end}_cell": pl.when(pl.col(f"{end}_latitude").is_between(-90, 90)).then(
            polars_h3.latlng_to_cell(f"{end}_latitude", f"{end}_longitude", _RESOLUTION, return_dtype=pl.String)
        )
        for end in ("pickup", "dropoff")
    }
    shaped = trips.with_columns(day=pl.col("pickup_at").dt.date(), file=pl.lit(file), **cells).with_row_index("row")
    wanted = schema(BRONZE_TRIPS)
    return shaped.with_columns(**utc).select(pl.col(name).cast(kind) for name, kind in wanted.items())


def fingerprint(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()


class _Counted:
    """The frame's record batches as they are read, counted."""

    def __init__(self, frame: pl.LazyFrame, tell: Callable[[int], None]) -> None:
        self._frame, self._tell = frame, tell
        self.schema = pl.DataFrame(schema=frame.collect_schema()).to_arrow().schema
        self.rows = 0
        self.first: object = None
        self.last: object = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for part in self._frame.collect_batches(chunk_size=_BATCH, maintain_order=False, engine="streaming"):
            self.rows += part.height
            days = part["day"].drop_nulls()
            if len(days):
                self.first = min(filter(None, (self.first, days.min())))  # type: ignore[type-var]
                self.last = max(filter(None, (self.last, days.max())))  # type: ignore[type-var]
            self._tell(self.rows)
            yield from part.to_arrow().cast(self.schema).to_batches()


def rows_in(lake: Path) -> int:
    return int(DeltaTable(lake / BRONZE_TRIPS.id).count())
