"""QuestDB over HTTP: statements, queries and the state of its tables."""

from typing import Any

import requests


class QuestDBError(RuntimeError):
    """A statement that QuestDB refused; the message holds QuestDB's own and the statement."""


def execute(address: str, sql: str, seconds: float = 10.0) -> dict[str, Any]:
    """Runs one statement at `host:port`; the answer as QuestDB's /exec gives it (`columns`, `dataset`, …).

    Raises QuestDBError where the statement is refused, requests.RequestException where the server is away.
    """
    answer = requests.get(f"http://{address}/exec", params={"query": sql}, timeout=seconds)
    try:
        found: dict[str, Any] = answer.json()
    except ValueError:
        raise QuestDBError(
            f"{address} answered HTTP {answer.status_code}, not QuestDB's JSON: is it a QuestDB?"
        ) from None
    if "error" in found:
        raise QuestDBError(f"{found['error']} (at character {found.get('position', '?')} of: {sql})")
    return found


def rows(address: str, sql: str) -> list[list[Any]]:
    """The rows of a query."""
    return list(execute(address, sql)["dataset"])


def resume_suspended(address: str, tables: list[str]) -> list[str]:
    """Resumes those of `tables` whose WAL was suspended by a crash or a full disk; returns them.

    What the suspended transactions held is sent again from bronze, so skipping none of them is safe here.
    """
    suspended = [row[0] for row in rows(address, "SELECT name, suspended FROM wal_tables()") if row[1]]
    found = [table for table in suspended if table in tables]
    for table in found:
        execute(address, f"ALTER TABLE {table} RESUME WAL")
    return found
