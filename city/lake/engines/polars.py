"""Runs transforms with Polars on one machine: lazy, streaming, with memory bounded by the chunk."""

from collections.abc import Iterable
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
    """The engine on Polars (see `Engine`)."""

    chunk_rows: int | None = 4_000_000
    part_rows: int | None = 150_000
    # A file whose end is not Parquet makes the reader panic. Polars' PanicException is not an Exception.
    errors: tuple[type[BaseException], ...] = (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        DeltaError,
        OSError,
    )

    def scan(self, table: DeltaTable) -> Frame:
        """Scans the table at the version of its handle, with the companion columns."""
        return nw.from_native(with_seconds(pl.scan_delta(table)))

    def where(self, frame: Frame, sql: str) -> Frame:
        """Selects the rows for which an SQL condition holds."""
        return frame if sql == "true" else nw.from_native(frame.to_native().filter(pl.sql_expr(sql)))

    def local(self, frame: pl.DataFrame) -> Frame:
        """Makes the frame lazy, with the companion columns."""
        return nw.from_native(with_seconds(frame.lazy()))

    def collect(self, frame: Frame) -> pl.DataFrame:
        """Computes the frame on the streaming engine."""
        return frame.to_native().collect(engine="streaming")

    def part(self, frame: Frame, column: str, number: int, parts: int) -> Frame:
        """Selects the rows whose value of the column belongs to a part."""
        return nw.from_native(frame.to_native().filter(pl.col(column).hash() % parts == number))

    def replace(self, table: Table, path: Path, frames: Iterable[Frame], slices: Slices | None) -> None:
        """Replaces the rows of `slices` (all rows, for None) by those of the frames, in one commit."""
        rows = (frame.to_native() for frame in frames)
        replace_partitions(path, partition_by(table), rows, slices.filters() if slices else None)


def with_seconds(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Adds the companion column of each timestamp column (see `Engine.scan`)."""
    times = [name for name, kind in frame.collect_schema().items() if isinstance(kind, pl.Datetime)]
    return frame.with_columns(pl.col(name).dt.epoch("s").alias(f"_{name}_seconds") for name in times)
