"""A person's or a device's data, found in every tier and erased from it, with a record of that.

Delta tables are rewritten without it and their old files deleted at once; QuestDB's partitions that hold it are dropped
and filled again from bronze; the online store's rows are deleted. Kafka keeps what it has for its retention (48 hours
here): its log cannot be rewritten.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import requests
from deltalake import DeltaTable

from city import questdb
from city.contracts.model import Contract, ContractError
from city.contracts.registry import contracts
from city.features.online import online_store
from city.features.views import views
from city.lake import LAYERS, bronze_path
from city.lake.retry import committed
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.questdb_sink import QuestDBSink

LOG = "forgotten.jsonl"


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


def find(config: Settings, kind: str, identity: str) -> dict[str, int]:
    """How many rows of it there are, by tier and table."""
    column = column_of(kind)
    found = {name: _count(path, column, identity) for name, path in _tables(config).items()}
    for contract in _of(column):
        found[f"questdb/{contract.name}"] = _in_questdb(config, contract, column, identity)
    store = online_store(config)
    for view in views().values():
        if view.entities == (column,):
            found[f"online/{view.name}"] = sum(row is not None for row in store.read(view.name, [identity]))
    return {name: rows for name, rows in found.items() if rows}


def forget(config: Settings, kind: str, identity: str, tell: Callable[[str], None] = lambda line: None) -> Forgotten:
    """Erases it everywhere it is found, and writes down that this was done."""
    import hashlib

    column = column_of(kind)
    digest = hashlib.sha256(f"{kind}/{identity}".encode()).hexdigest()
    done = Forgotten(kind, digest, datetime.now(UTC).isoformat())
    hours = {contract.name: _hours(config, contract, column, identity) for contract in _of(column)}
    for name, path in _tables(config).items():
        rows = _erase(path, column, identity)
        if rows:
            done.rows[name] = rows
            tell(f"{name}: {rows:,} rows")
    for contract in _of(column):
        try:
            rows = _in_questdb(config, contract, column, identity)
            if rows:
                _refill(config, contract, hours[contract.name])
                done.rows[f"questdb/{contract.name}"] = rows
                tell(f"questdb/{contract.name}: {rows:,} rows")
        except (requests.RequestException, RuntimeError) as error:
            done.problems.append(f"questdb/{contract.name}: {error}; it lets go of it after {contract.ttl}")
    store = online_store(config)
    for view in views().values():
        if view.entities == (column,) and (rows := store.forget(view.name, [identity])):
            done.rows[f"online/{view.name}"] = rows
    log = config.home / LOG
    with log.open("a") as file:
        file.write(json.dumps(asdict(done)) + "\n")
    return done


def _tables(config: Settings) -> dict[str, Path | str]:
    """Every Delta table of every tier."""
    warm = sorted(path for layer in LAYERS for path in (config.lake / layer).glob("*/"))
    found: dict[str, Path | str] = {f"{path.parent.name}/{path.name}": path for path in warm}
    for contract in contracts(config):
        found[f"cold/{contract.name}"] = f"{config.cold_path}/{contract.name}"
    return {name: path for name, path in found.items() if DeltaTable.is_deltatable(str(path))}


def _erase(path: Path | str, column: str, identity: str) -> int:
    condition = _condition(path, column, identity)
    if condition is None or not _count(path, column, identity):
        return 0
    rows = committed(path, lambda table: table.delete(condition)["num_deleted_rows"])
    # Without a grace period: that a deleted file lingers is just what must not be.
    committed(path, lambda table: table.vacuum(0, dry_run=False, enforce_retention_duration=False))
    return int(rows or 0)


def _count(path: Path | str, column: str, identity: str) -> int:
    frame = pl.scan_delta(str(path))
    about = _about(frame.collect_schema().names(), column, identity)
    return int(frame.filter(about).select(pl.len()).collect().item()) if about is not None else 0


def _condition(path: Path | str, column: str, identity: str) -> str | None:
    """What Delta deletes by; None where the table knows of no such thing."""
    names = [f.name for f in DeltaTable(path).schema().fields]
    if column in names:
        escaped = identity.replace("'", "''")
        return f"{column} = '{escaped}'"
    about = _about(names, column, identity)
    if about is None:
        return None
    if "entity" in names:
        ids = pl.scan_delta(str(path)).filter(about).select("id").collect()["id"]
        return f"id IN ({', '.join(map(repr, ids))})"  # ours: letters, digits and signs that need no escape
    rows = pl.scan_delta(str(path)).filter(about).select("partition", "offset").collect()
    places = rows.group_by("partition").agg("offset").iter_rows()
    return " OR ".join(f"(partition = {p} AND offset IN ({', '.join(map(str, offsets))}))" for p, offsets in places)


def _about(names: Sequence[str], column: str, identity: str) -> pl.Expr | None:
    """The rows about it: by their column, in answers by their entity, and in quarantine by a raw message that has its
    id as a JSON string."""
    if column in names:
        return pl.col(column) == identity
    if "entity" in names:
        told = f"{json.dumps(column)}:{json.dumps(identity)}"
        return pl.col("entity").str.contains(told, literal=True)
    return pl.col("raw").bin.contains(json.dumps(identity).encode()) if "raw" in names else None


def _of(column: str) -> list[Contract]:
    return [c for c in contracts() if column in {f.name for f in c.fields} and c.rate == "high"]


def _hours(config: Settings, contract: Contract, column: str, identity: str) -> list[datetime]:
    """The hours of bronze in which it is: QuestDB's partitions are hours too."""
    path = bronze_path(config.lake, contract)
    if not DeltaTable.is_deltatable(str(path)):
        return []
    time = pl.col(contract.event_time).dt.truncate("1h").alias("hour")
    found = pl.scan_delta(str(path)).filter(pl.col(column) == identity).select(time.unique()).collect()
    return sorted(found["hour"])


def _in_questdb(config: Settings, contract: Contract, column: str, identity: str) -> int:
    escaped = identity.replace("'", "''")
    try:
        found = questdb.rows(config.questdb, f"SELECT count() FROM {contract.name} WHERE {column} = '{escaped}'")
    except (requests.RequestException, RuntimeError):
        return 0
    return int(found[0][0])


def _refill(config: Settings, contract: Contract, hours: list[datetime]) -> None:
    """Drops the partitions of those hours and sends what bronze, without the erased, has of them."""
    sink = QuestDBSink(contract, config.questdb, BronzeStream(config.lake, contract))
    sink.open({})
    rows = pl.scan_delta(str(bronze_path(config.lake, contract)))
    try:
        for hour in hours:
            end = hour + timedelta(hours=1)
            first, last = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (hour, end))
            where = f"{contract.event_time} >= '{first}' AND {contract.event_time} < '{last}'"
            questdb.execute(config.questdb, f"ALTER TABLE {contract.name} DROP PARTITION WHERE {where}")
            time = pl.col(contract.event_time)
            sink.send_events(rows.filter(time >= hour, time < end).collect())
    finally:
        sink.close()
