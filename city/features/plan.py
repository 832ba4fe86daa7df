"""Plans the query of a table's transform once, and runs it on the frames of each batch.

A transform is written for whole tables. For a batch of a few events, building the query costs more than running it,
because it goes through narwhals expression by expression. So the query is built over scans whose rows are supplied
later.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime

import narwhals as nw
import polars as pl
from polars.io.plugins import register_io_source

from city.lake.engines.polars import with_seconds
from city.tables.model import Table
from city.tables.schema import schema


class Plan:
    """The planned query of one table. Only one thread may use it at a time."""

    def __init__(self, table: Table) -> None:
        assert table.transform is not None
        self._table, self._transform = table, table.transform
        self._frames: Mapping[str, pl.DataFrame] = {}
        self._schemas: dict[str, pl.Schema] = {}
        self._query: pl.LazyFrame | None = None
        self._names: list[str] = []

    def run(self, frames: Mapping[str, pl.DataFrame], since: tuple[str, datetime] | None = None) -> pl.DataFrame:
        """Computes the table's rows from the frames of its sources, by the sources' names in the table.

        `since` is a time column and a time. Rows that are earlier are not computed, as far as possible.
        """
        schemas = {name: frame.schema for name, frame in frames.items()}
        if self._query is None or schemas != self._schemas:
            self._schemas = schemas
            sources = {
                name: nw.from_native(with_seconds(self._scan_later(name, frame_schema)))
                for name, frame_schema in schemas.items()
            }
            self._query = self._transform(**sources).to_native()
            self._names = self._query.collect_schema().names()
        self._frames = frames
        try:
            query = self._query if since is None else self._query.filter(self._condition(*since))
            return query.select(*schema(self._table)).collect(engine="in-memory")
        finally:
            self._frames = {}  # a plan keeps no rows between two batches

    def _condition(self, column: str, first: datetime) -> pl.Expr:
        """Returns the condition that a row's time is `first` or later.

        Transforms join by the seconds of a time. So a condition on these reaches both sides of a join, and a condition
        on the time reaches one.
        """
        seconds = f"_{column}_seconds"
        later = pl.col(column) >= first
        return later & (pl.col(seconds) >= int(first.timestamp())) if seconds in self._names else later

    def _scan_later(self, name: str, frame_schema: pl.Schema) -> pl.LazyFrame:
        """Returns a scan that yields the frame of that name when the query runs."""

        def rows(
            columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, size: int | None
        ) -> Iterator[pl.DataFrame]:
            frame = self._frames[name]
            if predicate is not None:
                frame = frame.filter(predicate)
            if columns is not None:
                frame = frame.select(columns)
            yield frame if limit is None else frame.head(limit)

        return register_io_source(rows, schema=frame_schema)
