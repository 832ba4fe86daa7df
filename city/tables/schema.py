"""The column types that follow from a table's declaration."""

import polars as pl

from city.contracts.schema import POLARS
from city.tables.model import DAY, Table
from city.tables.slices import HOUR


def schema(table: Table) -> dict[str, pl.DataType]:
    return {c.name: pl.Date() if c.kind == "date" else POLARS[c.kind] for c in table.columns}


def partition_by(table: Table) -> list[str]:
    """What the files are laid out by. A table with local hours that is fed by a stream is replaced hour by hour."""
    if not table.daily:
        return []
    return [DAY, HOUR] if table.hourly_slices else [DAY]
