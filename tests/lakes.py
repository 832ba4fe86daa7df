"""Lakes for tests: bronze filled as the stream fills it, without servers."""

import json
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from city.contracts.model import Contract
from city.lake.lakehouse import Lakehouse, lakehouse
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.decode import decode
from city.streaming.records import Batch, RawBatch
from tests.events import iso


def house(config: Settings) -> Lakehouse:
    return lakehouse(config)


def stream(lake: Path, contract: Contract, events: Iterable[dict[str, Any]], arrived: datetime) -> None:
    """Appends events to bronze as one batch of partition 0, after what is there."""
    append(BronzeStream(lake, contract), contract, events, arrived)


def append(bronze: BronzeStream, contract: Contract, events: Iterable[dict[str, Any]], arrived: datetime) -> None:
    """The same, by a writer that may have been there for long."""
    first = (bronze.position or bronze.load([0]))[0]
    values: list[bytes | None] = [json.dumps(event).encode() for event in events]
    count = len(values)
    stamps = np.full(count, int(arrived.timestamp() * 1e6), np.int64)
    offsets = np.arange(first, first + count, dtype=np.int64)
    raw = RawBatch(values, np.zeros(count, np.int32), offsets, stamps, {0: first}, {0: first + count})
    rows, rejects = decode(contract, raw, bronze.watermarks)
    assert rejects.is_empty(), rejects["reasons"].to_list()[:3]
    bronze.commit(Batch(rows, raw.start, raw.end), rejects, {}, threading.Event(), lambda reason: None)


def drive(
    begin: datetime, hours: float, vehicles: int = 4, every: float = 300.0, seed: int = 0
) -> list[dict[str, Any]]:
    """Positions of some vehicles from `begin` on, in time's order, two in a hundred sent twice."""
    chance = np.random.default_rng(seed)
    events = []
    for second in np.arange(0, hours * 3600, every):
        moment = begin + timedelta(seconds=float(second))
        for number in range(vehicles):
            event = {
                "vehicle_id": f"v{number}",
                "timestamp": iso(moment.astimezone(UTC)),
                "latitude": round(40.75 + float(chance.normal(0, 0.01)), 6),
                "longitude": round(-73.98 + float(chance.normal(0, 0.01)), 6),
                "speed": round(float(chance.uniform(0, 50)), 1),
            }
            events += [event] * (2 if chance.random() < 0.02 else 1)
    return events


def rows(lake: Lakehouse, table: str, *keys: str) -> pl.DataFrame:
    return pl.read_delta(str(lake.path(table))).sort(*keys)
