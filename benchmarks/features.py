"""Online features: twenty of one entity and of a hundred, by our reader, and by Feast's plain call as it comes, on its
own SQLite store; and how long an event takes, through Kafka and the stream, to change its cell's online value."""

import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
from confluent_kafka import Producer

from benchmarks._stream import Stream
from city.features.online import OnlineStore, online_store, push
from city.features.reader import FeatureReader
from city.features.repository import feature_store
from city.features.views import view_of
from city.settings import Settings, settings
from city.stack.embedded import environment, running, settings_at
from city.streaming.topics import ensure_topics
from city_assets.traffic.contract import VEHICLE_POSITIONS

ENTITIES = 5_000
READS, FEAST_READS = 4_000, 400
MANY = 100
PROBES = 300
FILLED = ("traffic_features", "sensor_features")
RATE = 1_000  # events a second beside the probes


def run(tell: Callable[[str], None]) -> dict[str, Any]:
    """Times in milliseconds; `fresh_…` from the event's creation until the store gives its cell's value."""
    with tempfile.TemporaryDirectory() as folder:
        config = settings_at(Path(folder), settings().cache_folder)
        figures: dict[str, Any] = {"bench": "features"} | _reads(config, tell)
        figures |= _freshness(config, tell)
    return figures


def _reads(config: Settings, tell: Callable[[str], None]) -> dict[str, Any]:
    import os

    os.environ |= environment(config)
    settings.cache_clear()
    store, names = online_store(config), twenty()
    entities = fill(store)
    reader = FeatureReader(store, names)
    feast = feature_store(config, {"type": "sqlite", "path": str(config.home / "feast.db")})
    for name in FILLED:
        feast.write_to_online_store(name, rows_of(name).to_pandas())
    chance = np.random.default_rng(0)

    def pick(count: int) -> list[dict[str, str]]:
        return [entities[n] for n in chance.integers(0, len(entities), count)]

    figures: dict[str, Any] = {"features": len(names)}
    for label, count in (("", 1), (f"_{MANY}", MANY)):
        ours = _times(lambda chosen: reader.read(chosen), lambda count=count: pick(count), READS)  # type: ignore[misc]
        theirs = _times(
            lambda chosen: feast.get_online_features(names, chosen).to_dict(),
            lambda count=count: pick(count),  # type: ignore[misc]
            FEAST_READS,
        )
        for what, times in (("", ours), ("feast_", theirs)):
            figures |= {f"{what}p50_ms{label}": _percentile(times, 50), f"{what}p99_ms{label}": _percentile(times, 99)}
        tell(f"{count} entities: ours p99 {_percentile(ours, 99)} ms, Feast's call {_percentile(theirs, 99)} ms")
    return figures


def twenty() -> list[str]:
    """Twenty features of two views, whose names differ."""
    of_cells = [f"traffic_features:{name}" for name in view_of("traffic_features").features]
    of_sensors = [f"sensor_features:{name}" for name in view_of("sensor_features").features]
    return [*of_cells, *of_sensors][:20]


def fill(store: OnlineStore) -> list[dict[str, str]]:
    """Rows of ENTITIES cells and as many sensors, of a moment ago."""
    for name in FILLED:
        push(store, view_of(name), rows_of(name))
    return _entities()


def rows_of(name: str) -> pl.DataFrame:
    view, chance, now = view_of(name), np.random.default_rng(1), datetime.now(UTC)
    values = {"float": chance.random(ENTITIES) * 50, "integer": chance.integers(0, 50, ENTITIES)}
    values |= {"boolean": np.ones(ENTITIES, bool)}
    columns: dict[str, Any] = {
        column.name: values.get(column.kind, [now] * ENTITIES) for column in view.features.values()
    }
    keys = {entity: [e[entity] for e in _entities()] for entity in view.entities}
    return pl.DataFrame(columns | keys | {view.time: [now] * ENTITIES})


def _entities() -> list[dict[str, str]]:
    return [{"cell": f"88{n:013x}", "sensor_id": f"downtown_traffic_{n}"} for n in range(ENTITIES)]


def _times(read: Callable[[Any], Any], pick: Callable[[], Any], count: int) -> list[float]:
    for _ in range(count // 10):
        read(pick())
    latencies = []
    for _ in range(count):
        chosen = pick()
        began = time.perf_counter()
        read(chosen)
        latencies.append((time.perf_counter() - began) * 1000)
    return latencies


def _freshness(config: Settings, tell: Callable[[str], None]) -> dict[str, Any]:
    with running(config, "kafka", "questdb"):
        ensure_topics(config.kafka, [VEHICLE_POSITIONS])
        stream = Stream(config, Path(config.home) / "stream.log")
        try:
            times = _probe(config)
        finally:
            stream.stop()
    tell(f"event to online value: p95 {_percentile(times, 95)} ms")
    return {"probes": len(times), "fresh_p50_ms": _percentile(times, 50), "fresh_p95_ms": _percentile(times, 95)}


def _probe(config: Settings) -> list[float]:
    """Each probe is an event in a cell where nothing else is: online as soon as its cell is there."""
    producer = Producer(config.kafka.options({"linger.ms": 5}))
    store = online_store(config)
    waiting: dict[str, float] = {}
    latencies: list[float] = []
    sent, began = 0, time.time()
    warm = False
    number = 0
    deadline = time.monotonic() + 240
    while len(latencies) < PROBES and time.monotonic() < deadline:
        due = int((time.time() - began) * RATE) - sent
        for _ in range(max(0, min(due, RATE))):
            _send(producer, 40.70 + 0.1 * np.random.random(), -74.0 + 0.07 * np.random.random(), f"v{sent % 500}")
            sent += 1
        if warm and number < PROBES and len(waiting) < 5:
            latitude, longitude = -40 + (number // 60) * 0.05, 20 + (number % 60) * 0.05
            waiting[_cell(latitude, longitude)] = _send(producer, latitude, longitude, f"probe{uuid.uuid4().hex[:8]}")
            number += 1
        producer.poll(0)
        keys = list(waiting) or store.keys("traffic_features", 1)
        there = [row is not None for row in store.read("traffic_features", keys)] if keys else []
        now = time.time()
        warm = warm or (any(there) and now - began > 10)
        latencies += [
            (now - waiting.pop(key)) * 1000
            for key, is_there in zip(keys, there, strict=True)
            if is_there and key in waiting
        ]
        time.sleep(0.01)
    producer.flush(5)
    return latencies


def _send(producer: Producer, latitude: float, longitude: float, vehicle: str) -> float:
    now = time.time()
    event = {
        "vehicle_id": vehicle,
        "timestamp": datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z"),
        "latitude": latitude,
        "longitude": longitude,
        "speed": 30.0,
    }
    producer.produce(VEHICLE_POSITIONS.topic, orjson.dumps(event), vehicle)
    return now


def _cell(latitude: float, longitude: float) -> str:
    import polars_h3

    frame = pl.DataFrame({"a": [latitude], "b": [longitude]})
    resolution = VEHICLE_POSITIONS.cells[0].resolution
    return str(frame.select(polars_h3.latlng_to_cell("a", "b", resolution, return_dtype=pl.String)).item())


def _percentile(times: list[float], percent: float) -> float | None:
    return round(float(np.percentile(times, percent)), 3) if times else None
