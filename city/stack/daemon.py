"""Detects that Dagster's daemon hangs: its process still runs, but starts no schedule, sensor or run."""

import contextlib
import json
import sqlite3
import time
from functools import lru_cache

from city.settings import Settings

CODE_SERVER, DAEMON = "dagster-code", "dagster-daemon"
_HUNG_SECONDS = 120.0
"""Each loop of the daemon writes a heartbeat every half minute, or slightly later on a machine without a free core."""
_ASK_SECONDS = 10.0
_NEWEST = "SELECT body FROM daemon_heartbeats ORDER BY timestamp DESC LIMIT 1"


def daemon_hangs(config: Settings, created: float | None) -> str | None:
    """Returns the reason why the daemon counts as hanging, or None.

    It hangs when no loop of it has written a heartbeat to Dagster's storage for two minutes, and its process is older
    than that: `created` is its start in seconds since the epoch. Returns None where the storage is unavailable.
    """
    newest = _read_newest_heartbeat(config)
    if newest is None:
        return None
    quiet = time.time() - max(newest, created or 0.0)
    if quiet <= _HUNG_SECONDS:
        return None
    return f"no heartbeat for {quiet:.0f} s: no schedule, sensor or run is started"


def _read_newest_heartbeat(config: Settings) -> float | None:
    """Returns the time of the last heartbeat, in seconds since the epoch."""
    url = config.dagster_postgres
    body = _read_postgres(url, int(time.time() / _ASK_SECONDS)) if url else _read_sqlite(config)
    return float(json.loads(body)["timestamp"]) if body else None


def _read_sqlite(config: Settings) -> str | None:
    path = config.home / "dagster" / "history" / "runs.db"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0.5)) as storage:
            row: tuple[str] | None = storage.execute(_NEWEST).fetchone()
    except sqlite3.Error:  # the file does not exist yet, or is locked
        return None
    return row[0] if row else None


@lru_cache(maxsize=1)
def _read_postgres(url: str, _turn: int) -> str | None:
    """Reads the newest heartbeat from PostgreSQL, once in each `_turn`: the status is computed every two seconds."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 2})
        with engine.connect() as storage:
            body = storage.execute(text(_NEWEST)).scalar()
    except SQLAlchemyError:
        return None
    return str(body) if body else None
