"""Finds the data of a person or a device in every store, erases it, and records the erasure.

- Delta tables are rewritten without the identity. Their old files are deleted at once. Their logs are cut, because logs
  contain the identity in statistics and in delete conditions.
- A QuestDB table that contains the identity is replaced by a table made from bronze
  (`city.streaming.sinks.questdb_rebuild`). So is a table without such rows whose symbol files still contain it.
- Rows of the online store are deleted.
- In every other file of CITY_HOME (pinned references, pages of drift and quality, alarms, Dagster's records, logs) the
  identity is found by its spellings (`city.privacy.traces`) and overwritten.
- Running processes keep identities in memory and write them to disk. They read the announcement of the erasure first
  (`city.lake.erasures`).
- Kafka keeps its messages for its retention (48 hours here), because its log cannot be rewritten. A broker's queue of
  MQTT messages cannot be rewritten either; these messages are gone after delivery.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, quote_plus

import polars as pl
from deltalake import DeltaTable

from city import questdb
from city.append import append_whole
from city.contracts.model import Contract, ContractError, Window
from city.contracts.registry import contracts
from city.features.online import online_store
from city.features.views import views
from city.file_lock import file_lock
from city.lake import LAYERS, bronze_path, cold
from city.lake.erasures import Erased, announce, digest, writing
from city.lake.retry import committed
from city.privacy.traces import Traces
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.sinks.questdb_rebuild import copies, is_symbol, must_be_finished, rebuild

LOG = "forgotten.jsonl"
_ELSEWHERE = ("lake", "cold", "kafka", "questdb", "mosquitto", "cache", "spark", "data")
"""Folders of CITY_HOME that are not searched file by file: tables, the servers' own stores, and public data."""
_AGAIN = "run it again"
_LOG_RETENTION = "delta.logRetentionDuration"
_DEFAULT_RETENTION = "interval 30 days"


@dataclass
class Forgotten:
    """The record of an erasure: the time, and the number of rows by tier and table. It has a digest instead of the
    identity; a person who knows the identity can find the record by the digest."""

    kind: str
    digest: str
    at: str
    rows: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def kinds() -> dict[str, str]:
    """Returns the kinds of identities and their columns. They are the keys of contracts, such as `vehicle` for
    `vehicle_id`."""
    return {contract.key.removesuffix("_id"): contract.key for contract in contracts()}


def column_of(kind: str) -> str:
    """Returns the column of a kind of identities. Raises ContractError that lists the kinds."""
    columns = kinds()
    if kind not in columns:
        raise ContractError(f"nothing is known as {kind!r}; known: {', '.join(sorted(columns))}")
    return columns[kind]


def find(
    config: Settings, kind: str, identity: str, tell: Callable[[str], None] = lambda problem: None
) -> dict[str, int]:
    """Counts the rows of an identity by store and table, and its occurrences by file. A QuestDB table without such
    rows, in which the identity is still a symbol of a column, counts 1. `tell` is called with a text for each store
    that cannot be searched; that store may contain the identity too. Raises ContractError for an unknown kind."""
    column = column_of(kind)
    traces = Traces(column, identity)
    counts = {}
    for name, path in _list_tables(config).items():
        with _report_error(name, identity, tell):
            counts[name] = _count_rows(path, traces) if DeltaTable.is_deltatable(str(path)) else 0
    for table in _list_questdb_tables(config, column):
        with _report_error(f"questdb/{table.name}", identity, tell):
            rows = _count_questdb_rows(config, table, column, identity)
            counts[f"questdb/{table.name}"] = rows or int(_is_symbol(config, table, column, identity))
    for view in _list_views(column):
        with _report_error(f"online/{view}", identity, tell):
            counts[f"online/{view}"] = sum(row is not None for row in online_store(config).read(view, [identity]))
    for path in _list_files(config):
        name = str(path.relative_to(config.home))
        with _report_error(name, identity, tell), suppress(FileNotFoundError):  # deleted meanwhile
            counts[name] = traces.count_in_file(path)
    return {name: rows for name, rows in counts.items() if rows}


def forget(config: Settings, kind: str, identity: str, tell: Callable[[str], None] = lambda line: None) -> Forgotten:
    """Erases an identity from every store and records the erasure. A store that fails is listed in `problems` of the
    result, and the other stores are erased all the same; the function can be called again. `tell` is called with a line
    for each store from which rows were erased. Raises ContractError for an unknown kind, and OSError where the erasure
    cannot be announced; nothing is erased then."""
    column = column_of(kind)
    traces = Traces(column, identity)
    erasure = Erased(kind, digest(kind, identity))
    announce(config.home, erasure)
    report = Forgotten(kind, erasure.digest, datetime.now(UTC).isoformat())

    def count_erased(name: str, rows: int) -> None:
        if rows:
            report.rows[name] = rows
            tell(f"{name}: {rows:,} rows")

    def note_problem(name: str, remedy: str) -> AbstractContextManager[None]:
        return _report_error(name, identity, report.problems.append, f"; {remedy}")

    _erase_tables(config, traces, count_erased, note_problem)
    with file_lock(config.home / "questdb"):  # two rebuilds of a table would drop each other's copies
        for table in _list_questdb_tables(config, column):
            remedy = f"its rows are let go of after {table.contract.ttl}; run it again to replace the table"
            with note_problem(f"questdb/{table.name}", remedy):
                rows = _count_questdb_rows(config, table, column, identity)
                if (
                    rows
                    or must_be_finished(config.questdb, table.name)
                    or _may_be_a_symbol(config, table, column, identity, report)
                ):
                    rebuild(config.questdb, table.contract, BronzeStream(config.lake, table.contract), table.window)
                    count_erased(f"questdb/{table.name}", rows)
    for view in _list_views(column):
        with note_problem(f"online/{view}", _AGAIN):
            count_erased(f"online/{view}", online_store(config).forget(view, [identity]))
    for path in _list_files(config):
        name = str(path.relative_to(config.home))
        # A file may be deleted meanwhile.
        with note_problem(name, "run it again when nobody uses the file"), suppress(FileNotFoundError):
            count_erased(name, traces.erase(path))
    for setting, url in (
        ("CITY_ALERTS_URL", config.alerts_url),
        ("CITY_DAGSTER_POSTGRES_URL", config.dagster_postgres_url),
    ):
        if url is not None:
            report.problems.append(f"the database of {setting} is not looked through: erase it there")
    with writing(config.home):
        append_whole(config.home / LOG, json.dumps(asdict(report)).encode() + b"\n")
    return report


@contextmanager
def _report_error(name: str, identity: str, tell: Callable[[str], None], remedy: str = "") -> Iterator[None]:
    """Calls `tell` with the error of a store, so that the other stores are still processed. It catches every exception,
    because each store's client has its own."""
    try:
        yield
    except Exception as error:
        tell(f"{name}: {_redact(identity, str(error) or type(error).__name__)}{remedy}")


def _redact(identity: str, text: str) -> str:
    """Removes the identity from an error's text, which may contain it in a statement or an address."""
    for spelled in (_quote_literal(identity), json.dumps(identity), identity, quote(identity), quote_plus(identity)):
        text = text.replace(spelled, "…")
    return text


def _list_views(column: str) -> list[str]:
    """Returns the names of the views whose entity is the column."""
    return [view.name for view in views().values() if view.entities == (column,)]


def _list_tables(config: Settings) -> dict[str, Path | str]:
    """Returns every folder of every tier that may be a Delta table, by name. Sources come before the tables that are
    made from them."""
    warm = [path for layer in LAYERS for path in sorted((config.lake / layer).glob("*/"))]
    tables: dict[str, Path | str] = {f"{path.parent.name}/{path.name}": path for path in warm}
    for contract in contracts(config):
        tables[f"cold/{contract.name}"] = f"{config.cold_path}/{contract.name}"
    return tables


def _list_files(config: Settings) -> Iterator[Path]:
    """Yields every other file below CITY_HOME."""
    cold_path = Path(config.cold_path)
    for entry in sorted(config.home.glob("*")):
        if entry.name not in _ELSEWHERE and entry != config.cache:
            files = sorted(entry.rglob("*")) if entry.is_dir() else [entry]
            yield from (f for f in files if f.is_file() and not f.is_symlink() and not f.is_relative_to(cold_path))


def _erase_tables(
    config: Settings,
    traces: Traces,
    count_erased: Callable[[str, int], None],
    note_problem: Callable[[str, str], AbstractContextManager[None]],
) -> None:
    """Erases the identity from every table. A build of one of the tables waits for the lock. Its sources are without
    the identity then, so that it does not write the identity again."""
    tables = _list_tables(config)
    with ExitStack() as locks:
        archived = {}
        for contract in contracts(config):
            name, path = f"cold/{contract.name}", bronze_path(config.lake, contract)
            with note_problem(name, _AGAIN):
                if DeltaTable.is_deltatable(str(path)) and DeltaTable.is_deltatable(str(tables[name])):
                    locks.enter_context(cold.moving(config.lake, contract))
                    try:
                        cold.recover(DeltaTable(path), contract, config.cold_path)
                    except Exception:
                        del tables[name]  # an interrupted move must be undone before its table is changed
                        raise
                    archived[name] = contract
        for name, target in tables.items():
            with note_problem(name, _AGAIN):
                if not DeltaTable.is_deltatable(str(target)):
                    continue
                if isinstance(target, Path):
                    with file_lock(target.with_name(f"{target.name}.build")):
                        count_erased(name, _erase_from_table(target, traces))
                else:
                    count_erased(name, _erase_from_table(target, traces))
                if name in archived:
                    bronze = DeltaTable(bronze_path(config.lake, archived[name]))
                    cold.record(bronze, DeltaTable(target), archived[name])


def _erase_from_table(path: Path | str, traces: Traces) -> int:
    """Erases the identity from a Delta table and returns the number of deleted rows."""
    if not {traces.column, "entity", "raw"} & _column_names(path):
        return 0
    condition, rows = _delete_condition(path, traces), 0
    if condition is not None:
        rows = committed(path, lambda table: table.delete(condition)["num_deleted_rows"])
    # Files that were replaced, now or earlier, are deleted without a grace period, because they contain the identity.
    committed(path, lambda table: table.vacuum(0, dry_run=False, enforce_retention_duration=False))
    _cut_log(path)
    return int(rows or 0)


def _cut_log(path: Path | str) -> None:
    """Deletes the older entries of a table's log. They contain identities as minimum and maximum values, and in delete
    conditions."""
    retention = DeltaTable(path).metadata().configuration.get(_LOG_RETENTION, _DEFAULT_RETENTION)
    committed(path, lambda table: table.alter.set_table_properties({_LOG_RETENTION: "interval 0 seconds"}))
    table = DeltaTable(path)
    table.create_checkpoint()
    table.cleanup_metadata()
    committed(path, lambda table: table.alter.set_table_properties({_LOG_RETENTION: retention}))


def _delete_condition(path: Path | str, traces: Traces) -> str | None:
    """Returns the condition of the Delta table's delete, or None where the table has no rows of the identity."""
    table, columns = DeltaTable(path), _column_names(path)
    if traces.column in columns:
        return f"{traces.column} = {_quote_literal(traces.identity)}" if _count_rows(path, traces) else None
    if "entity" in columns:
        ids = pl.scan_delta(table).filter(_entity_condition(traces)).select("id").collect()["id"]
        return f"id IN ({', '.join(map(_quote_literal, ids))})" if len(ids) else None
    offsets_by_partition: dict[tuple[str, int], list[int]] = {}
    for topic, partition, offset in _find_messages(table, traces):
        offsets_by_partition.setdefault((topic, partition), []).append(offset)
    conditions = (
        f"(topic = {_quote_literal(topic)} AND partition = {partition} AND offset IN ({', '.join(map(str, offsets))}))"
        for (topic, partition), offsets in offsets_by_partition.items()
    )
    return " OR ".join(conditions) or None


def _count_rows(path: Path | str, traces: Traces) -> int:
    """Counts the rows of the identity in a Delta table."""
    table, columns = DeltaTable(path), _column_names(path)
    if traces.column in columns:
        condition = pl.col(traces.column) == traces.identity
    elif "entity" in columns:
        condition = _entity_condition(traces)
    else:
        return sum(1 for _ in _find_messages(table, traces)) if "raw" in columns else 0
    return int(pl.scan_delta(table).filter(condition).select(pl.len()).collect().item())


def _column_names(path: Path | str) -> set[str]:
    return {field.name for field in DeltaTable(path).schema().fields}


def _quote_literal(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


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


class _QuestDBTable(NamedTuple):
    """A QuestDB table that has the identity's column: the table of a contract's events, or of one of its windows."""

    contract: Contract
    window: Window | None = None

    @property
    def name(self) -> str:
        return self.window.name if self.window else self.contract.name


def _list_questdb_tables(config: Settings, column: str) -> list[_QuestDBTable]:
    """Returns the QuestDB tables that have the column. The list is empty where no QuestDB ever ran."""
    if config.questdb_address is None and not (config.home / "questdb").exists():
        return []
    events = [c for c in contracts() if column in {f.name for f in c.fields} and c.rate == "high"]
    windows = [_QuestDBTable(c, window) for c in contracts() for window in c.windows if window.by == column]
    return [*(_QuestDBTable(contract) for contract in events), *windows]


def _count_questdb_rows(config: Settings, table: _QuestDBTable, column: str, identity: str) -> int:
    """Counts the rows of the identity in a QuestDB table, including the copies of an unfinished rebuild. Returns 0 for
    a table that never existed. Raises as `questdb.rows` does."""
    return sum(_count_copy_rows(config.questdb, name, column, identity) for name in copies(config.questdb, table.name))


def _count_copy_rows(address: str, name: str, column: str, identity: str) -> int:
    try:
        rows = questdb.rows(address, f"SELECT count() FROM {name} WHERE {column} = {_quote_literal(identity)}")
    except questdb.QuestDBError as error:
        if "does not exist" in str(error):  # another process finished a rebuild meanwhile
            return 0
        raise
    return int(rows[0][0])


def _may_be_a_symbol(config: Settings, table: _QuestDBTable, column: str, identity: str, report: Forgotten) -> bool:
    """Tells whether the identity may be a symbol of the column in a table without rows of it. The files of a remote
    server cannot be read. There the answer is yes if this erasure deleted rows from bronze or cold storage."""
    if config.questdb_address is None:
        return _is_symbol(config, table, column, identity)
    return bool({f"bronze/{table.contract.name}", f"cold/{table.contract.name}"} & report.rows.keys())


def _is_symbol(config: Settings, table: _QuestDBTable, column: str, identity: str) -> bool:
    """Tells whether the identity is a symbol of the column in the table's files. Returns False for a remote server,
    whose files cannot be read."""
    if config.questdb_address is not None:
        return False
    folder, address = config.home / "questdb" / "db", config.questdb
    return any(is_symbol(address, folder, name, column, identity) for name in copies(address, table.name))
