"""Finds an identity in Delta tables, warm and cold, and erases it from their rows, files and logs."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from city.contracts.registry import contracts
from city.file_lock import file_lock
from city.lake import LAYERS, bronze_path, cold
from city.lake.location import Location, cold_location
from city.lake.retry import commit_with_retry
from city.privacy.traces import Traces, quote_literal
from city.settings import Settings

AGAIN = "run it again"
_LOG_RETENTION = "delta.logRetentionDuration"
_DEFAULT_RETENTION = "interval 30 days"
_NO_RETENTION = "interval 0 seconds"


def list_tables(config: Settings) -> dict[str, Location]:
    """Returns every folder of every tier that may be a Delta table, by name. Sources come before the tables that are
    made from them."""
    warm = [path for layer in LAYERS for path in sorted((config.lake / layer).glob("*/"))]
    tables = {f"{path.parent.name}/{path.name}": Location.of(path) for path in warm}
    for contract in contracts(config):
        tables[f"cold/{contract.name}"] = cold_location(config) / contract.name
    return tables


def erase_tables(
    config: Settings,
    traces: Traces,
    count_erased: Callable[[str, int], None],
    note_problem: Callable[[str, str], AbstractContextManager[None]],
) -> None:
    """Erases the identity from every table. A build of one of the tables waits for the lock. Its sources are without
    the identity then, so that it does not write the identity again."""
    tables = list_tables(config)
    with ExitStack() as locks:
        archived = {}
        for contract in contracts(config):
            name, path = f"cold/{contract.name}", bronze_path(config.lake, contract)
            with note_problem(name, AGAIN):
                if DeltaTable.is_deltatable(str(path)) and tables[name].exists():
                    locks.enter_context(cold.archive_lock(config.lake, contract))
                    try:
                        cold.recover(DeltaTable(path), contract, cold_location(config))
                    except Exception:
                        del tables[name]  # an interrupted move must be undone before its table is changed
                        raise
                    archived[name] = contract
        for name, target in tables.items():
            with note_problem(name, AGAIN), target.explained():
                if not target.exists():
                    continue
                if name.partition("/")[0] in LAYERS:
                    with file_lock(Path(f"{target}.build")):
                        count_erased(name, _erase_from_table(target, traces))
                else:
                    count_erased(name, _erase_from_table(target, traces))
                if name in archived:
                    bronze = DeltaTable(bronze_path(config.lake, archived[name]))
                    cold.record(bronze, target.open(), archived[name])


def _erase_from_table(place: Location, traces: Traces) -> int:
    """Erases the identity from a Delta table and returns the number of deleted rows."""
    if not {traces.column, "entity", "raw"} & _column_names(place):
        return 0
    condition, rows = _delete_condition(place, traces), 0
    if condition is not None:
        rows = commit_with_retry(place, lambda table: table.delete(condition)["num_deleted_rows"])
    # Files that were replaced, now or earlier, are deleted without a grace period, because they contain the identity.
    commit_with_retry(place, lambda table: table.vacuum(0, dry_run=False, enforce_retention_duration=False))
    cut_log(place)
    return int(rows or 0)


def cut_log(place: Path | Location) -> None:
    """Deletes the older entries of a table's log. They contain identities as minimum and maximum values, and in delete
    conditions."""
    table = Location.of(place).open()
    retention = table.metadata().configuration.get(_LOG_RETENTION, _DEFAULT_RETENTION)
    if retention == _NO_RETENTION:  # an erasure that was killed here has left it, and no table declares it
        retention = _DEFAULT_RETENTION
    commit_with_retry(place, lambda table: table.alter.set_table_properties({_LOG_RETENTION: _NO_RETENTION}))
    try:
        table = Location.of(place).open()
        table.create_checkpoint()
        table.cleanup_metadata()
    finally:
        commit_with_retry(place, lambda table: table.alter.set_table_properties({_LOG_RETENTION: retention}))


def _delete_condition(place: Location, traces: Traces) -> str | None:
    """Returns the condition of the Delta table's delete, or None where the table has no rows of the identity."""
    table, columns = place.open(), _column_names(place)
    if traces.column in columns:
        return f"{traces.column} = {quote_literal(traces.identity)}" if count_rows(place, traces) else None
    if "entity" in columns:
        ids = pl.scan_delta(table).filter(_entity_condition(traces)).select("id").collect()["id"]
        return f"id IN ({', '.join(map(quote_literal, ids))})" if len(ids) else None
    offsets_by_partition: dict[tuple[str, int], list[int]] = {}
    for topic, partition, offset in _find_messages(table, traces):
        offsets_by_partition.setdefault((topic, partition), []).append(offset)
    conditions = (
        f"(topic = {quote_literal(topic)} AND partition = {partition} AND offset IN ({', '.join(map(str, offsets))}))"
        for (topic, partition), offsets in offsets_by_partition.items()
    )
    return " OR ".join(conditions) or None


def count_rows(place: Location, traces: Traces) -> int:
    """Counts the rows of the identity in a Delta table."""
    table, columns = place.open(), _column_names(place)
    if traces.column in columns:
        condition = pl.col(traces.column) == traces.identity
    elif "entity" in columns:
        condition = _entity_condition(traces)
    else:
        return sum(1 for _ in _find_messages(table, traces)) if "raw" in columns else 0
    return int(pl.scan_delta(table).filter(condition).select(pl.len()).collect().item())


def _column_names(place: Location) -> set[str]:
    return {field.name for field in place.open().schema().fields}


def _entity_condition(traces: Traces) -> pl.Expr:
    """Selects the predictions about the identity. Their `entity` is a JSON object, which is parsed because JSON has
    several spellings of a text."""
    return pl.col("entity").str.json_path_match(f"$.{traces.column}") == traces.identity


def _find_messages(table: DeltaTable, traces: Traces) -> Iterator[tuple[str, int, int]]:
    """Yields topic, partition and offset of the rejected messages that contain the identity. Reads file by file."""
    columns = ["topic", "partition", "offset", "raw"]
    for file in table.file_uris():
        for topic, partition, offset, raw in pl.read_parquet(file, columns=columns).iter_rows():
            if traces.are_in(raw or b"") or traces.are_in(topic.encode()):
                yield topic, partition, offset
