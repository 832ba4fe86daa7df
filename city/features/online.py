"""The online store: for each view and entity its newest row, whole. SQLite, or Redis where CITY_REDIS_URL is set.

A row is written only over one that is not newer, so what comes late changes nothing. All features of a view are in
one value: reading a hundred entities is one query and a hundred small JSON documents.
"""

import re
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson
import polars as pl

from city.features.views import SEPARATOR, View
from city.file_lock import file_lock
from city.settings import Settings

_NAME = re.compile(r"^[a-z][a-z0-9_]*$")
_BUSY_SECONDS = 10.0
_PARAMETERS = 900  # of one SQLite query; its least limit is 999


@dataclass(frozen=True)
class Row:
    """An entity's features and the time (µs since the epoch) that they are of."""

    at: int
    features: dict[str, Any]


class OnlineStore(Protocol):
    def write(self, view: str, keys: Sequence[str], at: Sequence[int], rows: Sequence[bytes]) -> None:
        """Rows as JSON objects, at most one a key. One older than what is there is left out."""
        ...

    def read(self, view: str, keys: Sequence[str]) -> list[Row | None]:
        """In the order of `keys`; None for an entity that is not there."""
        ...

    def newest(self) -> dict[str, int]:
        """The newest time (µs since the epoch) that was ever written of each view."""
        ...

    def keys(self, view: str, limit: int) -> list[str]:
        """Some of the view's keys."""
        ...

    def forget(self, view: str, keys: Sequence[str]) -> int:
        """Deletes entities; how many there were."""
        ...


def online_store(config: Settings) -> OnlineStore:
    """The store that the settings name. Raises ImportError, with the mend, where the Redis client is missing."""
    if config.redis_url:
        return RedisStore(config.redis_url.get_secret_value())
    return SQLiteStore(config.home / "features" / "online.db")


class SQLiteStore:
    """One writer at a time, any number of readers beside it. A connection a thread."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._local = path, threading.local()
        # The journal's mode is the file's own, and SQLite does not wait for a lock to change it.
        with file_lock(path):
            self._connection().execute("PRAGMA journal_mode = WAL")

    def write(self, view: str, keys: Sequence[str], at: Sequence[int], rows: Sequence[bytes]) -> None:
        upsert = (
            f"INSERT INTO {_table(view)} VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
            "SET at = excluded.at, row = excluded.row WHERE excluded.at >= at"
        )
        connection = self._connection()
        values = list(zip(keys, at, rows, strict=True))
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_CREATE.format(table=_table(view)))
            connection.executemany(upsert, values)
            if at:
                connection.execute(_CREATE_NEWEST)
                connection.execute(_NEWEST_TIME, (view, max(at)))

    def newest(self) -> dict[str, int]:
        return dict(self._query("SELECT view, at FROM newest", []))

    def read(self, view: str, keys: Sequence[str]) -> list[Row | None]:
        found: dict[str, Row] = {}
        for first in range(0, len(keys), _PARAMETERS):
            part = keys[first : first + _PARAMETERS]
            marks = ",".join("?" * len(part))
            for key, at, row in self._query(f"SELECT key, at, row FROM {_table(view)} WHERE key IN ({marks})", part):
                found[key] = Row(at, orjson.loads(row))
        return [found.get(key) for key in keys]

    def keys(self, view: str, limit: int) -> list[str]:
        return [key for (key,) in self._query(f"SELECT key FROM {_table(view)} ORDER BY random() LIMIT ?", [limit])]

    def forget(self, view: str, keys: Sequence[str]) -> int:
        there = sum(row is not None for row in self.read(view, keys))
        if there:
            connection = self._connection()
            with connection:
                connection.executemany(f"DELETE FROM {_table(view)} WHERE key = ?", [(key,) for key in keys])
        return there

    def _query(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            return self._connection().execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # nothing was written of this view yet
                return []
            raise

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
            found.execute("PRAGMA synchronous = NORMAL")
            self._local.connection = found
        return found


_CREATE = (
    "CREATE TABLE IF NOT EXISTS {table} (key TEXT PRIMARY KEY, at INTEGER NOT NULL, row BLOB NOT NULL) WITHOUT ROWID"
)
# Beside the rows: the greatest of their times would be looked for in all of them.
_CREATE_NEWEST = "CREATE TABLE IF NOT EXISTS newest (view TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID"
_NEWEST_TIME = (
    "INSERT INTO newest VALUES (?, ?) ON CONFLICT (view) DO UPDATE SET at = excluded.at WHERE excluded.at > at"
)


class RedisStore:
    """A hash a view: the key's field has eight bytes of time, then the row. And one of the views' newest times."""

    def __init__(self, url: str) -> None:
        try:
            import redis
        except ImportError as error:
            raise ImportError("CITY_REDIS_URL needs the Redis client: pip install 'city[redis]'") from error
        self._redis: Any = redis.Redis.from_url(url, socket_timeout=_BUSY_SECONDS, socket_connect_timeout=_BUSY_SECONDS)
        self._write = self._redis.register_script(_NEWER)

    def write(self, view: str, keys: Sequence[str], at: Sequence[int], rows: Sequence[bytes]) -> None:
        if not at:
            return
        arguments: list[Any] = [view, max(at).to_bytes(8, "big")]
        for key, moment, row in zip(keys, at, rows, strict=True):
            arguments += [key, moment.to_bytes(8, "big") + row]
        self._write(keys=[_hash(view), _NEWEST_HASH], args=arguments)

    def newest(self) -> dict[str, int]:
        return {view.decode(): int.from_bytes(at, "big") for view, at in self._redis.hgetall(_NEWEST_HASH).items()}

    def read(self, view: str, keys: Sequence[str]) -> list[Row | None]:
        if not keys:
            return []
        found = self._redis.hmget(_hash(view), list(keys))
        return [Row(int.from_bytes(v[:8], "big"), orjson.loads(v[8:])) if v is not None else None for v in found]

    def keys(self, view: str, limit: int) -> list[str]:
        found = self._redis.hrandfield(_hash(view), limit) or []
        return [key.decode() for key in found]

    def forget(self, view: str, keys: Sequence[str]) -> int:
        return int(self._redis.hdel(_hash(view), *keys)) if keys else 0


# Times are written as eight bytes, most significant first, so that they compare as strings do.
_NEWER = """
local newest = redis.call('HGET', KEYS[2], ARGV[1])
if not newest or newest < ARGV[2] then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
for i = 3, #ARGV, 2 do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  if not held or string.sub(held, 1, 8) <= string.sub(ARGV[i + 1], 1, 8) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
"""


def push(store: OnlineStore, view: View, rows: pl.DataFrame) -> int:
    """Writes a feature table's rows, the newest of each entity; returns how many."""
    newest = rows.sort(view.time).unique(view.entities, keep="last")
    if newest.is_empty():
        return 0
    features = [
        pl.col(name).dt.epoch("us") if newest.schema[name].is_temporal() else pl.col(name) for name in view.features
    ]
    documents = newest.select(pl.struct(features).struct.json_encode().alias("row"))["row"]
    keys = newest.select(pl.concat_str([pl.col(name).cast(pl.String) for name in view.entities], separator=SEPARATOR))
    times = newest[view.time].dt.epoch("us").to_list()
    store.write(view.name, keys.to_series().to_list(), times, [document.encode() for document in documents])
    return newest.height


_NEWEST_HASH = "city:features-newest"


def _hash(view: str) -> str:
    return f"city:features:{view}"


def _table(view: str) -> str:
    if not _NAME.match(view):
        raise ValueError(f"{view!r} is no name of a feature view")
    return f"features_{view}"
