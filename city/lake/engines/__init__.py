"""What reads and writes the lake's tables for a transform: Polars on one machine, Spark on many. The transforms are the
same text; nothing outside this folder knows which one runs."""

from pathlib import Path
from typing import Protocol

import polars as pl
from deltalake import DeltaTable

from city.settings import Settings
from city.tables.model import Frame, Table
from city.tables.slices import Slices


class Engine(Protocol):
    """Reads Delta tables as lazy frames, and replaces parts of them by the result of one."""

    chunk_rows: int | None
    """How many rows one query may be about, for bounded memory; None where the engine sees to that itself."""

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """What reading, computing or writing raises."""
        ...

    def scan(self, table: DeltaTable) -> Frame:
        """The table at the version of its handle. Each timestamp column `t` has a companion `_t_seconds`, since the
        epoch."""
        ...

    def where(self, frame: Frame, sql: str) -> Frame:
        """The rows for which an SQL condition holds."""
        ...

    def local(self, frame: pl.DataFrame) -> Frame:
        """A small frame of our own, with the same companions."""
        ...

    def replace(self, table: Table, path: Path, frame: Frame, slices: Slices | None) -> None:
        """Puts the frame in place of the rows of `slices` (of all rows, for None), in one commit."""
        ...

    def collect(self, frame: Frame) -> pl.DataFrame: ...


def engine_of(config: Settings) -> Engine:
    """The engine that CITY_ENGINE names. Raises ImportError, with the mend, where Spark is not installed."""
    if config.engine == "spark":
        from city.lake.engines.spark import SparkEngine

        return SparkEngine(config)
    from city.lake.engines.polars import PolarsEngine

    return PolarsEngine()
