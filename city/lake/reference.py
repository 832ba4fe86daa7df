"""Reference tables: what people know of a city's things, and edit. Small, whole, each change a version of its own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake

from city.file_lock import file_lock
from city.lake.tables import open_table, scan
from city.tables.model import Table, TableError
from city.tables.registry import table_of, tables
from city.tables.schema import schema

LAYER = "reference"


def reference_tables() -> list[Table]:
    """Those that domains declare, to be edited."""
    return [table for table in tables().values() if table.layer == LAYER]


def reference_table(name: str) -> Table:
    """Raises TableError that lists the known ones."""
    return table_of(f"{LAYER}/{name}")


def read(root: Path, table: Table) -> pl.DataFrame:
    """The table's rows; none where it was never filled."""
    return scan(root / table.id, schema(table)).collect()


def update(root: Path, table: Table, change: Callable[[pl.DataFrame], pl.DataFrame], why: str) -> int:
    """Puts what `change` makes of the rows in their place; the version before stays readable. Gives how many.

    Raises TableError for other columns, values of another type, nulls where none are allowed, or a key that stands
    twice; then nothing is changed. Two that change a table take turns.
    """
    path = root / table.id
    open_table(path, schema(table))
    with file_lock(path):
        before = read(root, table)
        after = check(table, change(before))
        if not after.equals(before):
            reason = CommitProperties(custom_metadata={"why": why})
            write_deltalake(DeltaTable(path), after, mode="overwrite", commit_properties=reason)
    return after.height


def commission(root: Path, name: str, rows: Sequence[dict[str, Any]]) -> bool:
    """Fills a table that has never been filled; what people have edited since stays. Whether it did."""
    table = reference_table(name)
    if read(root, table).height:
        return False
    update(root, table, lambda _: pl.DataFrame(rows, schema=schema(table)), "commissioned")
    return True


def check(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows in the table's columns and types. Raises TableError that names the row and the mend."""
    wanted = schema(table)
    if missing := sorted(wanted.keys() - set(rows.columns)):
        raise TableError(f"{table.id}: the column {', '.join(missing)} is missing; it has {', '.join(wanted)}")
    if unknown := sorted(set(rows.columns) - wanted.keys()):
        raise TableError(f"{table.id}: there is no column {', '.join(unknown)}; it has {', '.join(wanted)}")
    typed = rows.select(*wanted)
    for name, kind in wanted.items():
        cast = _cast(typed[name], kind)
        wrong = typed.with_row_index("row", 1).filter(cast.is_null() & typed[name].is_not_null())
        if wrong.height:
            row, value = wrong["row"][0], wrong[name][0]
            raise TableError(f"{table.id}: row {row}: {value!r} in {name} is no {table.column(name).kind}")
        if not table.column(name).nullable and cast.null_count():
            row = int(cast.is_null().arg_max() or 0) + 1
            raise TableError(f"{table.id}: row {row}: {name} is empty, and must not be")
        typed = typed.with_columns(cast)
    twice = typed.filter(pl.struct(table.key).is_duplicated())
    if twice.height:
        key = ", ".join(f"{name} {twice[name][0]!r}" for name in table.key)
        raise TableError(f"{table.id}: {key} stands twice: keep one of them")
    return typed


def _cast(values: pl.Series, kind: pl.DataType) -> pl.Series:
    if values.dtype == pl.String and kind == pl.Boolean():
        return values.str.to_lowercase().replace_strict({"true": True, "false": False}, default=None)
    if values.dtype == pl.String and isinstance(kind, pl.Datetime):
        return values.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    return values.cast(kind, strict=False)
