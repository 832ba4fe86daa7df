"""Events for tests, valid unless a test says otherwise."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from city.streaming.records import RawBatch

NOW = datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)


def iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def position(**changes: Any) -> dict[str, Any]:
    """A vehicle position at NOW."""
    return {
        "vehicle_id": "taxi_1",
        "timestamp": iso(NOW),
        "latitude": 40.75,
        "longitude": -73.98,
        "speed": 30.5,
        "trip_id": "trip_1",
    } | changes


def reading(**changes: Any) -> dict[str, Any]:
    """A sensor's reading at NOW."""
    return {
        "timestamp": iso(NOW),
        "sensor_id": "downtown_traffic_3",
        "type": "traffic",
        "location": "downtown",
        "value": 42.0,
        "unit": "vehicles/min",
    } | changes


def encode(*events: dict[str, Any]) -> list[bytes | None]:
    return [json.dumps(event).encode() for event in events]


def raw(
    values: list[bytes | None], partitions: list[int] | None = None, first: int = 0, arrived: datetime = NOW
) -> RawBatch:
    """A batch of messages that arrived at `arrived`, all of partition 0 unless named."""
    parts = np.asarray(partitions or [0] * len(values), np.int32)
    offsets = np.zeros(len(values), np.int64)
    for p in np.unique(parts):
        offsets[parts == p] = first + np.arange((parts == p).sum())
    stamp = int(arrived.timestamp() * 1e6)
    ends = {int(p): int(offsets[parts == p].max()) + 1 for p in np.unique(parts)}
    return RawBatch(values, parts, offsets, np.full(len(values), stamp, np.int64), dict.fromkeys(ends, first), ends)


def later(seconds: float) -> str:
    return iso(NOW + timedelta(seconds=seconds))
