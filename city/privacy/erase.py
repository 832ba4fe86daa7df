"""A person's or a device's data, found in every store and erased from it, with a record of that.

Delta tables are rewritten without it, their old files deleted at once and their logs cut, which have it in statistics
and conditions. A table of QuestDB that has it, or had it and keeps it in its files of symbols, is replaced by one made
from bronze (`city.streaming.sinks.questdb_rebuild`). The online store's rows are deleted. In every other file of
CITY_HOME (pinned references, pages of drift and quality, alarms, Dagster's records, logs) it is found by its spelling
(`city.privacy.traces`) and covered. Running processes, which keep ids in memory and write them down, read of the
erasure first (`city.lake.erasures`). Kafka keeps what it has for its retention (48 hours here): its log cannot be
rewritten; nor can a broker's queue of MQTT messages, which are gone when they are delivered.
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
"""Folders of CITY_HOME that are not looked through file by file: tables, servers' own stores, and what is public."""
_AGAIN = "run it again"
_LOG_RETENTION = "delta.logRetentionDuration"
_DEFAULT_RETENTION = "interval 30 days"


@dataclass
class Forgotten:
    """What was found of an identity, by tier and table, and when it was erased. The identity itself is not kept: only
    a digest, by which somebody who knows it can find the record."""

    kind: str
    digest: str
    at: str
    rows: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def kinds() -> dict[str, str]:
    """What can be forgotten, and the column it is known by: the keys of contracts, `vehicle` for `vehicle_id`."""
    return {contract.key.removesuffix("_id"): contract.key for contract in contracts()}


def column_of(kind: str) -> str:
    """Raises ContractError that lists the known kinds."""
    known = kinds()
    if kind not in known:
        raise ContractError(f"nothing is known as {kind!r}; known: {', '.join(sorted(known))}")
    return known[kind]


def find(
    config: Settings, kind: str, identity: str, tell: Callable[[str], None] = lambda problem: None
) -> dict[str, int]:
    """How many rows of it there are, by store and table; of files, how many places. Of a table of QuestDB whose rows
    of it have gone, while it is still among a column's symbols, that is 1. `tell` gets a text for each store that
    cannot be looked through, which may have it too."""
    column = column_of(kind)
    traces = Traces(column, identity)
    found = {}
    for name, path in _tables(config).items():
        with _reported(name, identity, tell):
            found[name] = _rows_about(path, traces) if DeltaTable.is_deltatable(str(path)) else 0
    for table in _questdb_tables(config, column):
        with _reported(f"questdb/{table.name}", identity, tell):
            rows = _in_questdb(config, table, column, identity)
            found[f"questdb/{table.name}"] = rows or int(_is_symbol(config, table, column, identity))
    for view in _views(column):
        with _reported(f"online/{view}", identity, tell):
            found[f"online/{view}"] = sum(row is not None for row in online_store(config).read(view, [identity]))
    for path in _files(config):
        name = str(path.relative_to(config.home))
        with _reported(name, identity, tell), suppress(FileNotFoundError):  # deleted meanwhile
            found[name] = traces.in_file(path)
    return {name: rows for name, rows in found.items() if rows}


def forget(config: Settings, kind: str, identity: str, tell: Callable[[str], None] = lambda line: None) -> Forgotten:
    """Erases it everywhere it is found, and writes down that this was done. What cannot be erased now is in
    `problems`; the rest is erased all the same, and it can be called again. Raises OSError where the erasure cannot be
    announced: then nothing is erased."""
    column = column_of(kind)
    traces = Traces(column, identity)
    erasure = Erased(kind, digest(kind, identity))
    announce(config.home, erasure)
    done = Forgotten(kind, erasure.digest, datetime.now(UTC).isoformat())

    def erased(name: str, rows: int) -> None:
        if rows:
            done.rows[name] = rows
            tell(f"{name}: {rows:,} rows")

    def reported(name: str, remedy: str) -> AbstractContextManager[None]:
        return _reported(name, identity, done.problems.append, f"; {remedy}")

    _erase_tables(config, traces, erased, reported)
    with file_lock(config.home / "questdb"):  # two rebuilds of a table would drop each other's
        for table in _questdb_tables(config, column):
            kept = f"its rows are let go of after {table.contract.ttl}; run it again to replace the table"
            with reported(f"questdb/{table.name}", kept):
                rows = _in_questdb(config, table, column, identity)
                if (
                    rows
                    or must_be_finished(config.questdb, table.name)
                    or _may_be_a_symbol(config, table, column, identity, done)
                ):
                    rebuild(config.questdb, table.contract, BronzeStream(config.lake, table.contract), table.window)
                    erased(f"questdb/{table.name}", rows)
    for view in _views(column):
        with reported(f"online/{view}", _AGAIN):
            erased(f"online/{view}", online_store(config).forget(view, [identity]))
    for path in _files(config):
        name = str(path.relative_to(config.home))
        with reported(name, "run it again when nobody uses the file"), suppress(FileNotFoundError):  # deleted meanwhile
            erased(name, traces.erase(path))
    for setting, url in (
        ("CITY_ALERTS_URL", config.alerts_url),
        ("CITY_DAGSTER_POSTGRES_URL", config.dagster_postgres_url),
    ):
        if url is not None:
            done.problems.append(f"the database of {setting} is not looked through: erase it there")
    with writing(config.home):
        append_whole(config.home / LOG, json.dumps(asdict(done)).encode() + b"\n")
    return done


@contextmanager
def _reported(name: str, identity: str, tell: Callable[[str], None], remedy: str = "") -> Iterator[None]:
    """Tells what a store raises, so that the other stores are still looked through. Any exception: each store's client
    has its own."""
    try:
        yield
    except Exception as error:
        tell(f"{name}: {_without(identity, str(error) or type(error).__name__)}{remedy}")


def _without(identity: str, text: str) -> str:
    """An error's text without the identity, which a statement or an address in it may have."""
    for spelled in (_literal(identity), json.dumps(identity), identity, quote(identity), quote_plus(identity)):
        text = text.replace(spelled, "…")
    return text


def _views(column: str) -> list[str]:
    """Names of the views whose entity is known by the column."""
    return [view.name for view in views().values() if view.entities == (column,)]


def _tables(config: Settings) -> dict[str, Path | str]:
    """Every folder of every tier that may be a Delta table, sources before what is made of them."""
    warm = [path for layer in LAYERS for path in sorted((config.lake / layer).glob("*/"))]
    found: dict[str, Path | str] = {f"{path.parent.name}/{path.name}": path for path in warm}
    for contract in contracts(config):
        found[f"cold/{contract.name}"] = f"{config.cold_path}/{contract.name}"
    return found


def _files(config: Settings) -> Iterator[Path]:
    """Every other file below CITY_HOME."""
    cold_path = Path(config.cold_path)
    for entry in sorted(config.home.glob("*")):
        if entry.name not in _ELSEWHERE and entry != config.cache:
            files = sorted(entry.rglob("*")) if entry.is_dir() else [entry]
            yield from (f for f in files if f.is_file() and not f.is_symlink() and not f.is_relative_to(cold_path))


def _erase_tables(
    config: Settings,
    traces: Traces,
    erased: Callable[[str, int], None],
    reported: Callable[[str, str], AbstractContextManager[None]],
) -> None:
    """Erases it from every table. Whoever builds one of them waits, and then finds its old sources gone: nothing comes
    back."""
    tables = _tables(config)
    with ExitStack() as locks:
        archived = {}
        for contract in contracts(config):
            name, path = f"cold/{contract.name}", bronze_path(config.lake, contract)
            with reported(name, _AGAIN):
                if DeltaTable.is_deltatable(str(path)) and DeltaTable.is_deltatable(str(tables[name])):
                    locks.enter_context(cold.moving(config.lake, contract))
                    try:
                        cold.recover(DeltaTable(path), contract, config.cold_path)
                    except Exception:
                        del tables[name]  # a move that was broken off must be undone before its table is changed
                        raise
                    archived[name] = contract
        for name, target in tables.items():
            with reported(name, _AGAIN):
                if not DeltaTable.is_deltatable(str(target)):
                    continue
                if isinstance(target, Path):
                    with file_lock(target.with_name(f"{target.name}.build")):
                        erased(name, _erase(target, traces))
                else:
                    erased(name, _erase(target, traces))
                if name in archived:
                    bronze = DeltaTable(bronze_path(config.lake, archived[name]))
                    cold.record(bronze, DeltaTable(target), archived[name])


def _erase(path: Path | str, traces: Traces) -> int:
    if not {traces.column, "entity", "raw"} & _names(path):
        return 0
    condition, rows = _condition(path, traces), 0
    if condition is not None:
        rows = committed(path, lambda table: table.delete(condition)["num_deleted_rows"])
    # Without a grace period, also for what was replaced before: that it lingers is just what must not be.
    committed(path, lambda table: table.vacuum(0, dry_run=False, enforce_retention_duration=False))
    _cut_log(path)
    return int(rows or 0)


def _cut_log(path: Path | str) -> None:
    """Deletes the log's older entries: they have ids as least and greatest values, and in what was deleted by."""
    kept = DeltaTable(path).metadata().configuration.get(_LOG_RETENTION, _DEFAULT_RETENTION)
    committed(path, lambda table: table.alter.set_table_properties({_LOG_RETENTION: "interval 0 seconds"}))
    table = DeltaTable(path)
    table.create_checkpoint()
    table.cleanup_metadata()
    committed(path, lambda table: table.alter.set_table_properties({_LOG_RETENTION: kept}))


def _condition(path: Path | str, traces: Traces) -> str | None:
    """What Delta deletes by; None where the table has nothing of it."""
    table, names = DeltaTable(path), _names(path)
    if traces.column in names:
        return f"{traces.column} = {_literal(traces.identity)}" if _rows_about(path, traces) else None
    if "entity" in names:
        ids = pl.scan_delta(table).filter(_of_entity(traces)).select("id").collect()["id"]
        return f"id IN ({', '.join(map(_literal, ids))})" if len(ids) else None
    places: dict[tuple[str, int], list[int]] = {}
    for topic, partition, offset in _messages(table, traces):
        places.setdefault((topic, partition), []).append(offset)
    of_topics = (
        f"(topic = {_literal(topic)} AND partition = {partition} AND offset IN ({', '.join(map(str, offsets))}))"
        for (topic, partition), offsets in places.items()
    )
    return " OR ".join(of_topics) or None


def _rows_about(path: Path | str, traces: Traces) -> int:
    table, names = DeltaTable(path), _names(path)
    if traces.column in names:
        about = pl.col(traces.column) == traces.identity
    elif "entity" in names:
        about = _of_entity(traces)
    else:
        return sum(1 for _ in _messages(table, traces)) if "raw" in names else 0
    return int(pl.scan_delta(table).filter(about).select(pl.len()).collect().item())


def _names(path: Path | str) -> set[str]:
    return {field.name for field in DeltaTable(path).schema().fields}


def _literal(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def _of_entity(traces: Traces) -> pl.Expr:
    """Answers about it: their entity is a JSON object, in whatever way that spells it."""
    return pl.col("entity").str.json_path_match(f"$.{traces.column}") == traces.identity


def _messages(table: DeltaTable, traces: Traces) -> Iterator[tuple[str, int, int]]:
    """Topic, partition and offset of the rejected messages that mention it, read file by file."""
    columns = ["topic", "partition", "offset", "raw"]
    for file in table.file_uris():
        for topic, partition, offset, raw in pl.read_parquet(file, columns=columns).iter_rows():
            if traces.are_in(raw or b"") or traces.are_in(topic.encode()):
                yield topic, partition, offset


class _QuestDBTable(NamedTuple):
    """A table of QuestDB that has the column: of a contract's events, or of one of its windows."""

    contract: Contract
    window: Window | None = None

    @property
    def name(self) -> str:
        return self.window.name if self.window else self.contract.name


def _questdb_tables(config: Settings, column: str) -> list[_QuestDBTable]:
    """None where no QuestDB was ever there."""
    if config.questdb_address is None and not (config.home / "questdb").exists():
        return []
    events = [c for c in contracts() if column in {f.name for f in c.fields} and c.rate == "high"]
    windows = [_QuestDBTable(c, window) for c in contracts() for window in c.windows if window.by == column]
    return [*(_QuestDBTable(contract) for contract in events), *windows]


def _in_questdb(config: Settings, table: _QuestDBTable, column: str, identity: str) -> int:
    """Rows of it in QuestDB, with those that a rebuild which is not finished has set aside; 0 where the table was never
    there. Raises as `questdb.rows` does."""
    return sum(_rows_in(config.questdb, name, column, identity) for name in copies(config.questdb, table.name))


def _rows_in(address: str, name: str, column: str, identity: str) -> int:
    try:
        found = questdb.rows(address, f"SELECT count() FROM {name} WHERE {column} = {_literal(identity)}")
    except questdb.QuestDBError as error:
        if "does not exist" in str(error):  # another process has finished a rebuild meanwhile
            return 0
        raise
    return int(found[0][0])


def _may_be_a_symbol(config: Settings, table: _QuestDBTable, column: str, identity: str, done: Forgotten) -> bool:
    """Whether a table without rows of it keeps it among the column's symbols. The files of a server elsewhere cannot be
    looked into: there it may be, where bronze or cold storage just had rows of it."""
    if config.questdb_address is None:
        return _is_symbol(config, table, column, identity)
    return bool({f"bronze/{table.contract.name}", f"cold/{table.contract.name}"} & done.rows.keys())


def _is_symbol(config: Settings, table: _QuestDBTable, column: str, identity: str) -> bool:
    """False for a server elsewhere, too, whose files cannot be looked into."""
    if config.questdb_address is not None:
        return False
    folder, address = config.home / "questdb" / "db", config.questdb
    return any(is_symbol(address, folder, name, column, identity) for name in copies(address, table.name))
