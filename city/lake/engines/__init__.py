"""The engines that read and write the lake's tables for a transform: Polars on one machine, Spark on many.

Both engines run the same transforms. No code outside this folder depends on which engine runs.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import polars as pl
from deltalake import DeltaTable

from city.settings import Settings
from city.tables.model import Frame, Table
from city.tables.slices import Slices


class Engine(Protocol):
    """Reads Delta tables as lazy frames, and replaces parts of a table by the result of a frame."""

    chunk_rows: int | None
    """The largest number of rows of one query, for bounded memory; None where the engine itself bounds its memory."""
    part_rows: int | None
    """The number of rows that a query holds in memory: of its look-backs, or until repeated events are dropped.

    None as for `chunk_rows`.
    """

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The errors that reading, computing or writing raises."""
        ...

    def scan(self, table: DeltaTable) -> Frame:
        """Scans the table at the version of its handle.

        Each timestamp column `t` gets a companion column `_t_seconds`, in seconds since the epoch.
        """
        ...

    def where(self, frame: Frame, sql: str) -> Frame:
        """Selects the rows for which an SQL condition holds."""
        ...

    def local(self, frame: pl.DataFrame) -> Frame:
        """Converts a small Polars frame to a frame of the engine, with the same companion columns."""
        ...

    def part(self, frame: Frame, column: str, number: int, parts: int) -> Frame:
        """Selects the rows of one of so many parts, from number 0 on. Rows with one value of `column` are in one part.

        An engine without `part_rows` has one part.
        """
        ...

    def replace(self, table: Table, path: Path, frames: Iterable[Frame], slices: Slices | None) -> None:
        """Replaces the rows of `slices` (all rows, for None) by those of the frames, in one commit."""
        ...

    def collect(self, frame: Frame) -> pl.DataFrame:
        """Computes the frame."""
        ...


def engine_of(config: Settings) -> Engine:
    """Returns the engine that CITY_ENGINE names.

    Raises ImportError, with the fix, where Spark is not installed.
    """
    if config.engine == "spark":
        from city.lake.engines.spark import SparkEngine

        return SparkEngine(config)
    from city.lake.engines.polars import PolarsEngine

    return PolarsEngine()
