"""The online store: the newest row of each view and entity. SQLite, or Redis where CITY_REDIS_URL is set.

A row replaces another only if the other is not newer, so a late row changes nothing. All features of a view are in one
value, so reading a hundred entities takes one query and a hundred small JSON documents.
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

Features = dict[str, Any]
"""The features of an entity, by name: each has the type of its column."""
_PARAMETERS = 900  # of one SQLite query; SQLite's lowest limit is 999


@dataclass(frozen=True)
class Row:
    """The features of an entity, and their time (µs since the epoch)."""

    at: int
    features: Features


class OnlineStore(Protocol):
    """Stores the newest row of each entity, for every view."""

    def write(self, view: str, keys: Sequence[str], at: Sequence[int], rows: Sequence[bytes]) -> None:
        """Writes rows (JSON objects), at most one per key. A row that is older than the stored one is left out."""
        ...

    def read(self, view: str, keys: Sequence[str]) -> list[Row | None]:
        """Reads rows in the order of `keys`. A row is None for an entity that is not stored."""
        ...

    def newest(self) -> dict[str, int]:
        """Returns the newest time (µs since the epoch) that was ever written of each view."""
        ...

    def keys(self, view: str, limit: int) -> list[str]:
        """Returns up to `limit` keys of the view, chosen at random."""
        ...

    def forget(self, view: str, keys: Sequence[str]) -> int:
        """Deletes the rows of entities. Returns how many were stored."""
        ...


def online_store(config: Settings) -> OnlineStore:
    """Opens the store of the settings. Raises ImportError, with the fix, where the Redis client is missing."""
    if config.redis_url:
        return RedisStore(config.redis_url.get_secret_value())
    return SQLiteStore(config.home / "features" / "online.db")


class SQLiteStore:
    """Online store in SQLite: one writer and any number of readers at a time. Each thread has its own connection."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._local = path, threading.local()
        # The journal mode belongs to the file, and SQLite does not wait for a lock to change it.
        with file_lock(path):
            self._open_connection().execute("PRAGMA journal_mode = WAL")

    def write(self, view: str, keys: Sequence[str], at: Sequence[int], rows: Sequence[bytes]) -> None:
        """Implements `OnlineStore.write`."""
        upsert = (
            f"INSERT INTO {_table_name(view)} VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
            "SET at = excluded.at, row = excluded.row WHERE excluded.at >= at"
        )
        connection = self._open_connection()
        values = list(zip(keys, at, rows, strict=True))
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_CREATE.format(table=_table_name(view)))
            connection.executemany(upsert, values)
            if at:
                connection.execute(_CREATE_NEWEST)
                connection.execute(_NEWEST_TIME, (view, max(at)))

    def newest(self) -> dict[str, int]:
        """Implements `OnlineStore.newest`."""
        return dict(self._select_rows("SELECT view, at FROM newest", []))

    def read(self, view: str, keys: Sequence[str]) -> list[Row | None]:
        """Implements `OnlineStore.read`."""
        by_key: dict[str, Row] = {}
        for first in range(0, len(keys), _PARAMETERS):
            part = keys[first : first + _PARAMETERS]
            marks = ",".join("?" * len(part))
            for key, at, row in self._select_rows(
                f"SELECT key, at, row FROM {_table_name(view)} WHERE key IN ({marks})", part
            ):
                by_key[key] = Row(at, orjson.loads(row))
        return [by_key.get(key) for key in keys]

    def keys(self, view: str, limit: int) -> list[str]:
        """Implements `OnlineStore.keys`."""
        return [
            key
            for (key,) in self._select_rows(f"SELECT key FROM {_table_name(view)} ORDER BY random() LIMIT ?", [limit])
        ]

    def forget(self, view: str, keys: Sequence[str]) -> int:
        """Implements `OnlineStore.forget`."""
        stored = sum(row is not None for row in self.read(view, keys))
        if stored:
            connection = self._open_connection()
            with connection:
                connection.executemany(f"DELETE FROM {_table_name(view)} WHERE key = ?", [(key,) for key in keys])
        return stored

    def _select_rows(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Runs a query. Returns no rows where the table does not exist yet."""
        try:
            return self._open_connection().execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # no row of this view has been written yet
                return []
            raise

    def _open_connection(self) -> sqlite3.Connection:
        """Returns this thread's connection, and opens it at the first call."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
            connection.execute("PRAGMA synchronous = NORMAL")
            self._local.connection = connection
        return connection


_CREATE = (
    "CREATE TABLE IF NOT EXISTS {table} (key TEXT PRIMARY KEY, at INTEGER NOT NULL, row BLOB NOT NULL) WITHOUT ROWID"
)
# A table of its own, because the greatest time of the rows would be searched for in all of them.
_CREATE_NEWEST = "CREATE TABLE IF NOT EXISTS newest (view TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID"
_NEWEST_TIME = (
    "INSERT INTO newest VALUES (?, ?) ON CONFLICT (view) DO UPDATE SET at = excluded.at WHERE excluded.at > at"
)


class RedisStore:
    """Online store in Redis: one hash per view, and one hash of the views' newest times.

    A key's field in the hash of a view has eight bytes of time, then the row.
    """

    def __init__(self, url: str) -> None:
        try:
            import redis
        except ImportError as error:
            raise ImportError("CITY_REDIS_URL needs the Redis client: pip install 'city[redis]'") from error
        self._redis: Any = redis.Redis.from_url(url, socket_timeout=_BUSY_SECONDS, socket_connect_timeout=_BUSY_SECONDS)
        self._write = self._redis.register_script(_NEWER)

    def write(self, view: str, keys: Sequence[str], at: Sequence[int], rows: Sequence[bytes]) -> None:
        """Implements `OnlineStore.write`."""
        if not at:
            return
        arguments: list[str | bytes] = [view, max(at).to_bytes(8, "big")]
        for key, moment, row in zip(keys, at, rows, strict=True):
            arguments += [key, moment.to_bytes(8, "big") + row]
        self._write(keys=[_hash_name(view), _NEWEST_HASH], args=arguments)

    def newest(self) -> dict[str, int]:
        """Implements `OnlineStore.newest`."""
        return {view.decode(): int.from_bytes(at, "big") for view, at in self._redis.hgetall(_NEWEST_HASH).items()}

    def read(self, view: str, keys: Sequence[str]) -> list[Row | None]:
        """Implements `OnlineStore.read`."""
        if not keys:
            return []
        values = self._redis.hmget(_hash_name(view), list(keys))
        return [Row(int.from_bytes(v[:8], "big"), orjson.loads(v[8:])) if v is not None else None for v in values]

    def keys(self, view: str, limit: int) -> list[str]:
        """Implements `OnlineStore.keys`."""
        raw_keys = self._redis.hrandfield(_hash_name(view), limit) or []
        return [key.decode() for key in raw_keys]

    def forget(self, view: str, keys: Sequence[str]) -> int:
        """Implements `OnlineStore.forget`."""
        return int(self._redis.hdel(_hash_name(view), *keys)) if keys else 0


# Times are written as eight bytes, most significant first, so that their order is the order of strings.
_NEWER = """
local newest = redis.call('HGET', KEYS[2], ARGV[1])
if not newest or newest < ARGV[2] then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
for i = 3, #ARGV, 2 do
  local current = redis.call('HGET', KEYS[1], ARGV[i])
  if not current or string.sub(current, 1, 8) <= string.sub(ARGV[i + 1], 1, 8) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
"""


def push(store: OnlineStore, view: View, rows: pl.DataFrame) -> int:
    """Writes the newest row of each entity in a feature table's rows. Returns how many rows it writes."""
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


def _hash_name(view: str) -> str:
    return f"city:features:{view}"


def _table_name(view: str) -> str:
    """Returns the name of a view's table. Raises ValueError where the view's name is not plain, as it enters SQL."""
    if not _NAME.match(view):
        raise ValueError(f"{view!r} is no name of a feature view")
    return f"features_{view}"
