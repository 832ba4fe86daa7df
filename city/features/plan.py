"""A table's transform as a query that is planned once and run on the frames of the moment.

A transform is written for whole tables. For a batch of a few events, building its query costs more than running it: it
goes through narwhals expression by expression. So the query is built over scans whose rows are given later.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import narwhals as nw
import polars as pl
from polars.io.plugins import register_io_source

from city.lake.engines.polars import with_seconds
from city.tables.model import Table
from city.tables.schema import schema


class Plan:
    """The query of one table. For one thread at a time."""

    def __init__(self, table: Table) -> None:
        assert table.transform is not None
        self._table, self._transform = table, table.transform
        self._frames: Mapping[str, pl.DataFrame] = {}
        self._schemas: dict[str, pl.Schema] = {}
        self._query: pl.LazyFrame | None = None

    def run(self, frames: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
        """The table's rows of these sources, by the names that the table gives them."""
        schemas = {name: frame.schema for name, frame in frames.items()}
        if self._query is None or schemas != self._schemas:
            self._schemas = schemas
            sources = {name: nw.from_native(with_seconds(self._scan(name, of))) for name, of in schemas.items()}
            rows = self._transform(**sources)
            self._query = rows.select(nw.col(name) for name in schema(self._table)).to_native()
        self._frames = frames
        try:
            return self._query.collect(engine="in-memory")
        finally:
            self._frames = {}  # a plan holds no rows between two batches

    def _scan(self, name: str, of: pl.Schema) -> pl.LazyFrame:
        def rows(
            columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, size: int | None
        ) -> Iterator[pl.DataFrame]:
            found: Any = self._frames[name]
            if predicate is not None:
                found = found.filter(predicate)
            if columns is not None:
                found = found.select(columns)
            yield found if limit is None else found.head(limit)

        return register_io_source(rows, schema=of)
