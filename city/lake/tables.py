"""Delta tables made once and opened safely: of the declared columns, or not at all."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from deltalake.schema import Schema

from city.file_lock import file_lock

# Each commit lists the log's folder, and each checkpoint has all files that were removed within their retention: both
# must stay short where several commits a second go on for months. A reader lists a table's files when it begins, and
# the files themselves are kept for CITY_VACUUM_HOURS.
_CONFIGURATION = {
    "delta.logRetentionDuration": "interval 10 minutes",
    "delta.deletedFileRetentionDuration": "interval 1 hours",
    "delta.checkpointInterval": "100",
}


class ForeignTable(RuntimeError):
    """The path holds a Delta table of other columns."""


def open_table(
    path: Path, schema: dict[str, pl.DataType], partition_by: Sequence[str] = (), may_add: Collection[str] = ()
) -> DeltaTable:
    """The table at `path`, made if it is not there.

    Columns of `may_add` that an older table has not are added to it; its rows have null there. Raises ForeignTable
    when it has other columns than that.
    """
    wanted = Schema.from_arrow(pl.Schema(schema))
    try:
        table = DeltaTable(path)
    except TableNotFoundError:
        table = _create(path, wanted, partition_by)
    found = {field.name: field.type for field in table.schema().fields}
    kinds = {field.name: field.type for field in wanted.fields}
    extra, missing = sorted(found.keys() - kinds.keys()), sorted(kinds.keys() - found.keys())
    other = sorted(n for n in found.keys() & kinds.keys() if found[n] != kinds[n])
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
        table = _configure(path)
    return _evolve(path, wanted, missing) if missing else table


def scan(path: Path, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """The table's rows; none, of these columns, where it is not there yet."""
    if not DeltaTable.is_deltatable(str(path)):
        return pl.LazyFrame(schema=schema)
    return pl.scan_delta(str(path))


def _create(path: Path, schema: Schema, partition_by: Sequence[str]) -> DeltaTable:
    """Creates the table once, however many processes try: two creators would race (delta-io/delta-rs#3505)."""
    path.mkdir(parents=True, exist_ok=True)
    with file_lock(path):
        if not DeltaTable.is_deltatable(str(path)):
            DeltaTable.create(
                path, schema=schema, mode="error", partition_by=list(partition_by), configuration=_CONFIGURATION
            )
    return DeltaTable(path)


def _configure(path: Path) -> DeltaTable:
    """Gives an older table today's configuration."""
    with file_lock(path):
        table = DeltaTable(path)
        table.alter.set_table_properties(_CONFIGURATION)
    return DeltaTable(path)


def _evolve(path: Path, schema: Schema, missing: Sequence[str]) -> DeltaTable:
    with file_lock(path):
        table = DeltaTable(path)
        held = {field.name for field in table.schema().fields}
        if added := [field for field in schema.fields if field.name in missing and field.name not in held]:
            table.alter.add_columns(added)
    return DeltaTable(path)
