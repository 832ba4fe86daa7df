"""Polars on one machine: lazy, streaming, bounded in memory by the chunk."""

from pathlib import Path

import narwhals as nw
import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from city.lake.partitions import replace_partitions
from city.tables.model import Frame, Table
from city.tables.schema import partition_by
from city.tables.slices import Slices


class PolarsEngine:
    chunk_rows: int | None = 4_000_000
    # A file whose end is not Parquet makes the reader panic, which Polars raises as no Exception.
    errors: tuple[type[BaseException], ...] = (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        DeltaError,
        OSError,
    )

    def scan(self, table: DeltaTable) -> Frame:
        return nw.from_native(with_seconds(pl.scan_delta(table)))

    def where(self, frame: Frame, sql: str) -> Frame:
        return frame if sql == "true" else nw.from_native(frame.to_native().filter(pl.sql_expr(sql)))

    def local(self, frame: pl.DataFrame) -> Frame:
        return nw.from_native(with_seconds(frame.lazy()))

    def collect(self, frame: Frame) -> pl.DataFrame:
        return frame.to_native().collect(engine="streaming")

    def replace(self, table: Table, path: Path, frame: Frame, slices: Slices | None) -> None:
        replace_partitions(path, partition_by(table), frame.to_native(), slices.filters() if slices else None)


def with_seconds(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Adds the companion of each timestamp column (see `Engine.scan`)."""
    times = [name for name, kind in frame.collect_schema().items() if isinstance(kind, pl.Datetime)]
    return frame.with_columns(pl.col(name).dt.epoch("s").alias(f"_{name}_seconds") for name in times)
