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
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, quote_plus

from city.append import append_whole
from city.contracts.model import ContractError
from city.contracts.registry import contracts
from city.features.online import online_store
from city.features.views import views
from city.file_lock import file_lock
from city.lake.erasures import Erasure, announce, digest, writing
from city.privacy.delta_tables import AGAIN, count_rows, erase_tables, list_tables
from city.privacy.questdb_tables import count_questdb_rows, is_in_symbols, list_questdb_tables, may_be_a_symbol
from city.privacy.traces import Traces, quote_literal
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.sinks.questdb_rebuild import must_be_finished, rebuild

LOG = "forgotten.jsonl"
_ELSEWHERE = ("lake", "cold", "kafka", "questdb", "mosquitto", "cache", "spark", "data")
"""Folders of CITY_HOME that are not searched file by file: tables, the servers' own stores, and public data."""


_STATE = ("dagster", "history", "run")
"""Folders of CITY_HOME with the state of Dagster, of the history and of the parts."""


@dataclass
class ErasureReport:
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


def _traces(kind: str, identity: str) -> Traces:
    """Returns the traces of an identity. Raises ContractError for an unknown kind, and for an empty identity."""
    column = column_of(kind)
    if not identity.strip():
        raise ContractError(f"the identity of the {kind} is empty: give its {column}")
    return Traces(column, identity)


def find(
    config: Settings, kind: str, identity: str, report_problem: Callable[[str], None] = lambda problem: None
) -> dict[str, int]:
    """Counts the rows of an identity by store and table, and its occurrences by file. A QuestDB table without such
    rows, in which the identity is still a symbol of a column, counts 1. `report_problem` is called with a text for
    each store that cannot be searched; that store may contain the identity too. Raises ContractError for an unknown
    kind."""
    traces = _traces(kind, identity)
    column = traces.column
    counts = {}
    for name, place in list_tables(config).items():
        with _report_error(name, identity, report_problem), place.explained():
            counts[name] = count_rows(place, traces) if place.exists() else 0
    for table in list_questdb_tables(config, column):
        with _report_error(f"questdb/{table.name}", identity, report_problem):
            rows = count_questdb_rows(config, table, column, identity)
            counts[f"questdb/{table.name}"] = rows or int(is_in_symbols(config, table, column, identity))
    for view in _list_views(column):
        with _report_error(f"online/{view}", identity, report_problem):
            counts[f"online/{view}"] = sum(row is not None for row in online_store(config).read(view, [identity]))
    for path in _list_files(config):
        name = str(path.relative_to(config.home))
        with _report_error(name, identity, report_problem), suppress(FileNotFoundError):  # deleted meanwhile
            counts[name] = traces.count_in_file(path, _has_state(config, path))
    return {name: rows for name, rows in counts.items() if rows}


def forget(
    config: Settings, kind: str, identity: str, progress: Callable[[str], None] = lambda line: None
) -> ErasureReport:
    """Erases an identity from every store and records the erasure. A store that fails is listed in `problems` of the
    result, and the other stores are erased all the same; the function can be called again. `progress` is called with a
    line for each store from which rows were erased. Raises ContractError for an unknown kind, and OSError where the
    erasure cannot be announced; nothing is erased then."""
    traces = _traces(kind, identity)
    column = traces.column
    erasure = Erasure(kind, digest(kind, identity))
    announce(config.home, erasure)
    report = ErasureReport(kind, erasure.digest, datetime.now(UTC).isoformat())

    def count_erased(name: str, rows: int) -> None:
        if rows:
            report.rows[name] = rows
            progress(f"{name}: {rows:,} rows")

    def note_problem(name: str, remedy: str) -> AbstractContextManager[None]:
        return _report_error(name, identity, report.problems.append, f"; {remedy}")

    erase_tables(config, traces, count_erased, note_problem)
    with file_lock(config.home / "questdb"):  # two rebuilds of a table would drop each other's copies
        for table in list_questdb_tables(config, column):
            remedy = f"its rows are deleted after {table.contract.ttl}; run it again to replace the table"
            with note_problem(f"questdb/{table.name}", remedy):
                rows = count_questdb_rows(config, table, column, identity)
                if (
                    rows
                    or must_be_finished(config.questdb, table.name)
                    or may_be_a_symbol(config, table, column, identity, report.rows)
                ):
                    rebuild(config.questdb, table.contract, BronzeStream(config.lake, table.contract), table.window)
                    count_erased(f"questdb/{table.name}", rows)
    for view in _list_views(column):
        with note_problem(f"online/{view}", AGAIN):
            count_erased(f"online/{view}", online_store(config).forget(view, [identity]))
    for path in _list_files(config):
        name = str(path.relative_to(config.home))
        # A file may be deleted meanwhile.
        with note_problem(name, "run it again when nobody uses the file"), suppress(FileNotFoundError):
            count_erased(name, traces.erase(path, _has_state(config, path)))
    for setting, url in (
        ("CITY_ALERTS_URL", config.alerts_url),
        ("CITY_DAGSTER_POSTGRES_URL", config.dagster_postgres_url),
    ):
        if url is not None:
            report.problems.append(f"the database of {setting} is not searched: erase the identity there")
    with writing(config.home):
        append_whole(config.home / LOG, json.dumps(asdict(report)).encode() + b"\n")
    return report


@contextmanager
def _report_error(name: str, identity: str, report_problem: Callable[[str], None], remedy: str = "") -> Iterator[None]:
    """Calls `report_problem` with the error of a store, so that the other stores are still processed. It catches
    every exception, because each store's client has its own."""
    try:
        yield
    except Exception as error:
        report_problem(f"{name}: {_redact(identity, str(error) or type(error).__name__)}{remedy}")


def _redact(identity: str, text: str) -> str:
    """Removes the identity from an error's text, which may contain it in a statement or an address."""
    for spelled in (quote_literal(identity), json.dumps(identity), identity, quote(identity), quote_plus(identity)):
        text = text.replace(spelled, "…")
    return text


def _list_views(column: str) -> list[str]:
    """Returns the names of the views whose entity is the column."""
    return [view.name for view in views().values() if view.entities == (column,)]


def _has_state(config: Settings, path: Path) -> bool:
    """Returns whether a file may have the state of processes, such as the cursor of a sensor."""
    return path.relative_to(config.home).parts[0] in _STATE


def _list_files(config: Settings) -> Iterator[Path]:
    """Yields every other file below CITY_HOME."""
    cold_path = Path(config.cold_path)
    for entry in sorted(config.home.glob("*")):
        if entry.name not in _ELSEWHERE and entry != config.cache:
            files = sorted(entry.rglob("*")) if entry.is_dir() else [entry]
            yield from (f for f in files if f.is_file() and not f.is_symlink() and not f.is_relative_to(cold_path))
