"""Creates Delta tables once, and opens only tables that have the declared columns."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import narwhals as nw
import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from deltalake.schema import Schema

from city.file_lock import file_lock
from city.tables.model import Table
from city.tables.schema import schema as table_schema
from city.tables.schema import with_optional

# Each commit lists the log's folder, and each checkpoint has all files that were removed within their retention. Both
# must stay short, because several commits a second may go on for months. A reader lists a table's files at its start,
# and the files themselves stay for CITY_VACUUM_HOURS.
_CONFIGURATION = {
    "delta.logRetentionDuration": "interval 10 minutes",
    "delta.deletedFileRetentionDuration": "interval 1 hours",
    "delta.checkpointInterval": "100",
}


class ForeignTable(RuntimeError):
    """The path has a Delta table with other columns or other partitions."""


def open_table(
    path: Path, schema: dict[str, pl.DataType], partition_by: Sequence[str] = (), may_add: Collection[str] = ()
) -> DeltaTable:
    """Opens the table at `path`, and creates it where it does not exist.

    Adds the columns of `may_add` that an older table does not have; its rows have null there. Raises ForeignTable when
    the table differs in other columns, or in its partition columns.
    """
    declared = Schema.from_arrow(pl.Schema(schema))
    try:
        table = DeltaTable(path)
    except TableNotFoundError:
        table = _create_table(path, declared, partition_by)
    stored_kinds = {field.name: field.type for field in table.schema().fields}
    kinds = {field.name: field.type for field in declared.fields}
    extra, missing = sorted(stored_kinds.keys() - kinds.keys()), sorted(kinds.keys() - stored_kinds.keys())
    other = sorted(n for n in stored_kinds.keys() & kinds.keys() if stored_kinds[n] != kinds[n])
    if extra or other or not set(missing) <= set(may_add):
        raise ForeignTable(
            f"the Delta table at {path} is not this one: unexpected columns {extra}, missing {missing}, "
            f"of another type {other}. Move it away, or point CITY_HOME at another folder."
        )
    if list(table.metadata().partition_columns) != list(partition_by):
        raise ForeignTable(
            f"the Delta table at {path} is partitioned by {table.metadata().partition_columns}, not by "
            f"{list(partition_by)}. Move it away, or point CITY_HOME at another folder."
        )
    if any(table.metadata().configuration.get(name) != value for name, value in _CONFIGURATION.items()):
        table = _configure_table(path)
    return _add_columns(path, declared, missing) if missing else table


def scan(path: Path, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """Scans the table's rows; a frame without rows, of these columns, where the table does not exist yet."""
    if not DeltaTable.is_deltatable(str(path)):
        return pl.LazyFrame(schema=schema)
    return pl.scan_delta(str(path))


def scan_table(root: Path, table: Table) -> pl.LazyFrame:
    """Scans a declared table's rows; none where it does not exist yet.

    The nullable columns that the stored table of an earlier release does not have yet are null.
    """
    return with_optional(table, nw.from_native(scan(root / table.id, table_schema(table)))).to_native()


def _create_table(path: Path, schema: Schema, partition_by: Sequence[str]) -> DeltaTable:
    """Creates the table once. The lock prevents a race between two processes (delta-io/delta-rs#3505)."""
    path.mkdir(parents=True, exist_ok=True)
    with file_lock(path):
        if not DeltaTable.is_deltatable(str(path)):
            DeltaTable.create(
                path, schema=schema, mode="error", partition_by=list(partition_by), configuration=_CONFIGURATION
            )
    return DeltaTable(path)


def _configure_table(path: Path) -> DeltaTable:
    """Sets the current configuration on an older table."""
    with file_lock(path):
        table = DeltaTable(path)
        table.alter.set_table_properties(_CONFIGURATION)
    return DeltaTable(path)


def _add_columns(path: Path, schema: Schema, missing: Sequence[str]) -> DeltaTable:
    with file_lock(path):
        table = DeltaTable(path)
        names = {field.name for field in table.schema().fields}
        if added := [field for field in schema.fields if field.name in missing and field.name not in names]:
            table.alter.add_columns(added)
    return DeltaTable(path)
