"""Polars on one machine: lazy, streaming, bounded in memory by the chunk."""

from pathlib import Path

import narwhals as nw
import polars as pl
from deltalake import WriterProperties
from deltalake.exceptions import DeltaError

from city.lake.retry import committed
from city.tables.model import Frame, Table
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

    def scan(self, path: Path) -> Frame:
        return nw.from_native(_with_seconds(pl.scan_delta(str(path))))

    def where(self, frame: Frame, sql: str) -> Frame:
        return frame if sql == "true" else nw.from_native(frame.to_native().filter(pl.sql_expr(sql)))

    def local(self, frame: pl.DataFrame) -> Frame:
        return nw.from_native(_with_seconds(frame.lazy()))

    def collect(self, frame: Frame) -> pl.DataFrame:
        return frame.to_native().collect(engine="streaming")

    def replace(self, table: Table, path: Path, frame: Frame, slices: Slices | None) -> None:
        rows: pl.LazyFrame = frame.to_native()
        options = {
            "predicate": slices.sql() if slices else None,
            "writer_properties": WriterProperties(compression="ZSTD", compression_level=1),
            "target_file_size": 128 << 20,
        }
        # Where another partition's run committed first, these rows are not of its slices.
        committed(
            path,
            lambda held: rows.sink_delta(held, mode="overwrite", delta_write_options=options, engine="streaming"),
        )


def _with_seconds(frame: pl.LazyFrame) -> pl.LazyFrame:
    times = [name for name, kind in frame.collect_schema().items() if isinstance(kind, pl.Datetime)]
    return frame.with_columns(pl.col(name).dt.epoch("s").alias(f"_{name}_seconds") for name in times)
