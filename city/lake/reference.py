"""Reads and edits reference tables: the data that people maintain about a city's objects.

The tables are small and are written whole. Each change is a version of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import narwhals as nw
import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake

from city.file_lock import file_lock
from city.lake.tables import open_table, scan_table
from city.tables.model import Table, TableError
from city.tables.registry import table_of, tables
from city.tables.schema import schema, with_optional

LAYER = "reference"


def reference_tables() -> list[Table]:
    """Returns the reference tables that domains declare. People may edit them."""
    return [table for table in tables().values() if table.layer == LAYER]


def reference_table(name: str) -> Table:
    """Returns the reference table of this name. Raises TableError that lists the known tables."""
    return table_of(f"{LAYER}/{name}")


def read(root: Path, table: Table) -> pl.DataFrame:
    """Reads the table's rows; no rows where it was never filled. A column that it had not then is null."""
    return scan_table(root, table).collect()


def update(root: Path, table: Table, change: Callable[[pl.DataFrame], pl.DataFrame], why: str) -> int:
    """Replaces the rows by the result of `change` on them, and returns the new number of rows.

    `why` is the reason in the commit. The version before stays readable. Two changes of a table run one after the
    other. Raises TableError for other columns, values of another type, nulls where none are allowed, or a repeated key.
    Then the table is unchanged.
    """
    path = root / table.id
    open_table(path, schema(table), may_add=[column.name for column in table.columns if column.nullable])
    with file_lock(path):
        before = read(root, table)
        after = check(table, change(before))
        if not after.equals(before):
            reason = CommitProperties(custom_metadata={"why": why})
            write_deltalake(DeltaTable(path), after, mode="overwrite", commit_properties=reason)
    return after.height


def commission(root: Path, name: str, rows: Sequence[Mapping[str, object]]) -> bool:
    """Fills a table that is empty, and returns whether it did. It never overwrites what people have edited since."""
    table = reference_table(name)
    if read(root, table).height:
        return False
    given = [[row.get(name) for row in rows] for name in schema(table)]
    frame = pl.DataFrame(given, schema=schema(table), orient="col")
    update(root, table, lambda _: frame, "commissioned")
    return True


def check(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Returns the rows in the table's columns and types. Raises TableError that names the row and the fix."""
    columns, rows = schema(table), with_optional(table, nw.from_native(rows.lazy())).to_native().collect()
    if missing := sorted(columns.keys() - set(rows.columns)):
        raise TableError(f"{table.id}: the column {', '.join(missing)} is missing; it has {', '.join(columns)}")
    if unknown := sorted(set(rows.columns) - columns.keys()):
        raise TableError(f"{table.id}: there is no column {', '.join(unknown)}; it has {', '.join(columns)}")
    typed = rows.select(*columns)
    for name, kind in columns.items():
        cast = _cast_values(typed[name], kind)
        invalid = typed.with_row_index("row", 1).filter(cast.is_null() & typed[name].is_not_null())
        if invalid.height:
            row, value = invalid["row"][0], invalid[name][0]
            raise TableError(f"{table.id}: row {row}: {value!r} in {name} is no {table.column(name).kind}")
        if kind.is_float() and not (finite := cast.is_finite() | cast.is_null()).all():
            row = int((~finite).arg_max() or 0) + 1
            raise TableError(f"{table.id}: row {row}: {typed[name][row - 1]!r} in {name} is no finite number")
        if not table.column(name).nullable and cast.null_count():
            row = int(cast.is_null().arg_max() or 0) + 1
            raise TableError(f"{table.id}: row {row}: {name} is empty, and must not be")
        if (choices := table.column(name).choices) and (unknown := sorted(set(cast.drop_nulls()) - set(choices))):
            row = int(cast.is_in(unknown).arg_max() or 0) + 1
            raise TableError(f"{table.id}: row {row}: {unknown[0]!r} in {name} is none of {', '.join(choices)}")
        typed = typed.with_columns(cast)
    for fault in table.faults:
        wrong = nw.from_native(typed.with_row_index("row", 1)).filter(fault.is_wrong)
        if wrong.shape[0]:
            row, value = wrong.select("row", fault.column).row(0)
            raise TableError(f"{table.id}: row {row}: {value!r} in {fault.column} {fault.mend}")
    duplicates = typed.filter(pl.struct(table.key).is_duplicated())
    if duplicates.height:
        key = ", ".join(f"{name} {duplicates[name][0]!r}" for name in table.key)
        raise TableError(f"{table.id}: {key} stands twice: keep one of them")
    return typed


def _cast_values(values: pl.Series, kind: pl.DataType) -> pl.Series:
    if values.dtype == pl.String and kind == pl.Boolean():
        return values.str.to_lowercase().replace_strict({"true": True, "false": False}, default=None)
    if values.dtype == pl.String and isinstance(kind, pl.Datetime):
        return values.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    if values.dtype == pl.String and kind == pl.Date():
        return values.str.to_date("%Y-%m-%d", strict=False)
    return values.cast(kind, strict=False)
