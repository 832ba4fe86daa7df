"""Sends statements and queries to QuestDB over HTTP, and resumes its suspended tables."""

from typing import Any

import requests


class QuestDBError(RuntimeError):
    """QuestDB refused a statement. The message contains QuestDB's own message and the statement."""


def execute(address: str, sql: str, seconds: float = 10.0) -> dict[str, Any]:
    """Runs one statement at `host:port` and returns the JSON of QuestDB's /exec (`columns`, `dataset`, …).

    `seconds` is the timeout. Raises QuestDBError where the statement is refused, and requests.RequestException where
    the server is unavailable.
    """
    response = requests.get(f"http://{address}/exec", params={"query": sql}, timeout=seconds)
    try:
        result: dict[str, Any] = response.json()
    except ValueError:
        raise QuestDBError(
            f"{address} answered HTTP {response.status_code}, not QuestDB's JSON: is it a QuestDB?"
        ) from None
    if "error" in result:
        raise QuestDBError(f"{result['error']} (at character {result.get('position', '?')} of: {sql})")
    return result


def rows(address: str, sql: str) -> list[list[Any]]:
    """Returns the rows of a query. Raises as `execute` does."""
    return list(execute(address, sql)["dataset"])


def resume_suspended(address: str, tables: list[str]) -> list[str]:
    """Resumes those of `tables` whose WAL was suspended by a crash or a full disk, and returns them.

    It skips no suspended transaction. That is safe here, because the stream sends their rows again from bronze.
    """
    suspended = [row[0] for row in rows(address, "SELECT name, suspended FROM wal_tables()") if row[1]]
    resumed = [table for table in suspended if table in tables]
    for table in resumed:
        execute(address, f"ALTER TABLE {table} RESUME WAL")
    return resumed
