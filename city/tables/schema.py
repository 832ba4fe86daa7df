"""Derives the column types and the partitioning of a table from its declaration."""

import narwhals as nw
import polars as pl

from city.contracts.schema import POLARS
from city.tables.model import DAY, Frame, Table
from city.tables.slices import HOUR

NARWHALS = {
    "string": nw.String(),
    "float": nw.Float64(),
    "integer": nw.Int64(),
    "boolean": nw.Boolean(),
    "timestamp": nw.Datetime("us", "UTC"),
    "date": nw.Date(),
}
"""The Narwhals type of each kind of column."""


def schema(table: Table) -> dict[str, pl.DataType]:
    """Returns the Polars type of each column, by name."""
    return {c.name: pl.Date() if c.kind == "date" else POLARS[c.kind] for c in table.columns}


def partition_by(table: Table) -> list[str]:
    """Returns the columns that partition the table's files.

    A table with local hours that a stream fills is replaced hour by hour.
    """
    if not table.daily:
        return []
    return [DAY, HOUR] if table.hourly_slices else [DAY]


def with_optional(table: Table, frame: Frame) -> Frame:
    """Adds the nullable columns that the stored table of an earlier release does not have yet, with nulls."""
    stored = set(frame.collect_schema().names())
    missing = [column for column in table.columns if column.nullable and column.name not in stored]
    return frame.with_columns(nw.lit(None).cast(NARWHALS[c.kind]).alias(c.name) for c in missing) if missing else frame
