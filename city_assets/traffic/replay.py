"""Replays recorded taxi trips as vehicles that move now."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from confluent_kafka import Producer

from city.settings import Settings
from city.streaming.topics import ensure_topics
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.replay_clock import in_step, running
from city_assets.traffic.trips import clean, positions, read_trips, to_utc

STEP_SECONDS = 0.5
"""The time between two steps of a replay."""
_ISO_8601 = "%Y-%m-%dT%H:%M:%S%.3fZ"  # UTC, with milliseconds


@dataclass
class LoadedTrips:
    """Trips that are ready to replay, with their times in UTC.

    `read` is the number of trips in the files, `rejected` the number of rejected trips by reason, and `by_zone` the
    number of trips with zones instead of coordinates.
    """

    trips: pl.DataFrame
    read: int
    rejected: dict[str, int] = field(default_factory=dict)
    by_zone: int = 0


def load(paths: Sequence[Path], timezone: str, zones: Path | None = None) -> LoadedTrips:
    """Reads and cleans files of trips, whose local times are those of `timezone`.

    The trips are those that silver has after `city ingest`. Raises UnknownLayout or FileNotFoundError.
    """
    cleaned, read, rejected = [], 0, dict[str, int]()
    for path in paths:
        trips = to_utc(read_trips(path, zones), timezone)
        possible, counts = clean(trips)
        cleaned.append(possible)
        read += trips.height
        for reason, count in counts.items():
            rejected[reason] = rejected.get(reason, 0) + count
    trips = pl.concat(cleaned).sort("pickup_at").with_row_index("trip")
    return LoadedTrips(trips, read, rejected, int(trips["by_zone"].sum()))


def events(trips: pl.DataFrame, moment: datetime, now: datetime) -> list[tuple[str, bytes]]:
    """Returns the positions of the trips at `moment` (UTC), with the timestamp `now` (UTC), as (key, message).

    The files name no vehicle, so each trip has a vehicle of its own.
    """
    number = pl.col("trip").cast(pl.String).str.zfill(8)
    under_way = positions(trips, moment).select(
        vehicle_id=pl.lit("taxi_") + number,
        timestamp=pl.lit(now).dt.strftime(_ISO_8601),
        latitude="latitude",
        longitude="longitude",
        speed="speed",
        trip_id=pl.lit("trip_") + number,
    )
    lines = under_way.write_ndjson().encode().splitlines()
    return list(zip(under_way["vehicle_id"].to_list(), lines, strict=True))


def replay(
    loaded: LoadedTrips,
    config: Settings,
    speed: float,
    stop: threading.Event,
    progress: Callable[[datetime, int], None],
) -> int:
    """Sends the positions of the trips to Kafka until the trips end or `stop` is set.

    At speed 1 the trips keep their local hour and weekday. Otherwise the replay begins with the first trip, and runs
    `speed` times as fast as real time. `progress` is called with the moment in the trips' time (UTC) and the number of
    positions sent so far. Returns the number of positions sent.
    """
    ensure_topics(config.kafka, [VEHICLE_POSITIONS])
    producer = Producer(config.kafka.options({"linger.ms": 20, "compression.type": "lz4"}))
    started = time.monotonic()
    if speed == 1:
        clock = in_step(loaded.trips, config.timezone, lambda: datetime.now(UTC))
    else:
        clock = running(loaded.trips, speed, lambda: time.monotonic() - started)
    sent = 0
    while (moment := clock()) is not None:
        messages = events(loaded.trips, moment, datetime.now(UTC))
        for key, message in messages:
            producer.produce(VEHICLE_POSITIONS.topic, message, key)
        producer.flush(10)
        sent += len(messages)
        progress(moment, sent)
        if stop.wait(STEP_SECONDS):
            break
    return sent
