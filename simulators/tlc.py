"""Replays recorded taxi trips as vehicles that move now, and fetches months of them from the TLC."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import requests
from confluent_kafka import Producer

from city.settings import Settings
from city.streaming.topics import ensure_topics
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.trips import clean, positions, read_trips
from simulators.clock import iso

STEP_SECONDS = 0.5
_CHUNK_BYTES = 1 << 20


@dataclass
class Loaded:
    """Trips ready to replay, and what was left out of them."""

    trips: pl.DataFrame
    read: int
    rejected: dict[str, int] = field(default_factory=dict)
    by_zone: int = 0


def load(paths: Sequence[Path], zones: Path | None = None) -> Loaded:
    """Reads and cleans files of trips. Raises UnknownLayout or FileNotFoundError."""
    kept, read, rejected = [], 0, dict[str, int]()
    for path in paths:
        trips = read_trips(path, zones)
        good, counts = clean(trips)
        kept.append(good)
        read += trips.height
        for reason, count in counts.items():
            rejected[reason] = rejected.get(reason, 0) + count
    trips = pl.concat(kept).sort("pickup_at").with_row_index("trip")
    return Loaded(trips, read, rejected, int(trips["by_zone"].sum()))


def moments(trips: pl.DataFrame, speed: float, elapsed: Callable[[], float]) -> Callable[[], datetime | None]:
    """A clock in the trips' own time that runs `speed` times as fast as `elapsed`, and skips hours without a trip.

    Gives None after the last drop-off.
    """
    ends = trips["dropoff_at"].cum_max()
    pickups = trips["pickup_at"]
    skipped = timedelta()
    first, last = pickups[0], ends[-1]

    def now() -> datetime | None:
        nonlocal skipped
        moment = first + timedelta(seconds=elapsed() * speed) + skipped
        if moment >= last:
            return None
        begun = int(pickups.search_sorted(moment, side="right"))
        if begun and ends[begun - 1] <= moment:
            skipped += pickups[begun] - moment
            moment = pickups[begun]
        return moment

    return now


def events(trips: pl.DataFrame, moment: datetime, now: datetime) -> list[tuple[str, bytes]]:
    """Positions at `moment`, dated `now`, as (key, message). Files name no vehicle, so each trip is its own."""
    number = pl.col("trip").cast(pl.String).str.zfill(8)
    under_way = positions(trips, moment).select(
        vehicle_id=pl.lit("taxi_") + number,
        timestamp=pl.lit(iso(now)),
        latitude="latitude",
        longitude="longitude",
        speed="speed",
        trip_id=pl.lit("trip_") + number,
    )
    lines = under_way.write_ndjson().encode().splitlines()
    return list(zip(under_way["vehicle_id"].to_list(), lines, strict=True))


def replay(
    loaded: Loaded, config: Settings, speed: float, stop: threading.Event, tell: Callable[[datetime, int], None]
) -> int:
    """Plays the trips into Kafka until they end or `stop`; returns the number of positions sent."""
    ensure_topics(config.kafka, [VEHICLE_POSITIONS])
    producer = Producer({"bootstrap.servers": config.kafka, "linger.ms": 20, "compression.type": "lz4", "log_level": 0})
    started = time.monotonic()
    clock = moments(loaded.trips, speed, lambda: time.monotonic() - started)
    sent = 0
    while (moment := clock()) is not None:
        messages = events(loaded.trips, moment, datetime.now(UTC))
        for key, message in messages:
            producer.produce(VEHICLE_POSITIONS.topic, message, key)
        producer.flush(10)
        sent += len(messages)
        tell(moment, sent)
        if stop.wait(STEP_SECONDS):
            break
    return sent


def month_file(month: str) -> str:
    """`2015-01` is yellow_tripdata_2015-01.parquet. Raises ValueError for what is not a month since 2009."""
    try:
        first = datetime.strptime(month, "%Y-%m")
    except ValueError:
        raise ValueError(f"{month!r} is not a month such as 2015-01") from None
    if first.year < 2009:
        raise ValueError(f"{month}: the TLC's records begin with 2009-01")
    return f"yellow_tripdata_{first:%Y-%m}.parquet"


def download(config: Settings, month: str, folder: Path, tell: Callable[[int, int], None]) -> Path:
    """Fetches a month, going on where an earlier attempt stopped. `tell` gets (bytes so far, bytes in all).

    Raises requests.RequestException, or RuntimeError where the server's file is not what was begun.
    """
    name = month_file(month)
    target, partial = folder / name, folder / f"{name}.part"
    if target.exists():
        tell(target.stat().st_size, target.stat().st_size)
        return target
    folder.mkdir(parents=True, exist_ok=True)
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(f"{config.tlc_url}/{name}", headers=headers, stream=True, timeout=30) as answer:
        if answer.status_code == 416:  # all of it was there already, or the file has become shorter
            partial.unlink()
            raise RuntimeError(f"{name} changed on the server since it was begun: run the command again")
        answer.raise_for_status()
        if answer.status_code != 206:
            have = 0
        total = have + int(answer.headers.get("Content-Length", 0))
        with partial.open("ab" if have else "wb") as file:
            for chunk in answer.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                have += len(chunk)
                tell(have, total)
    if total and have != total:
        raise RuntimeError(f"{name} ended after {have:,} of {total:,} bytes: run the command again to go on from there")
    partial.replace(target)
    return target
