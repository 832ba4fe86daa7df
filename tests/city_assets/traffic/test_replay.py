import json
import threading
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from city.settings import Settings
from city.streaming.topics import ensure_topics
from city_assets.traffic.console import describe, play
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.replay import events, load, moments, replay
from tests.city_assets.traffic.test_trips import trip
from tests.events import NOW
from tests.live import consume


def two_trips() -> pl.DataFrame:
    later = timedelta(days=2)
    second = trip(pickup_at=datetime(2015, 1, 1, 12) + later, dropoff_at=datetime(2015, 1, 1, 12, 10) + later)
    return pl.concat([trip(), second]).with_row_index("trip")


def test_the_clock_runs_faster_and_skips_hours_without_a_trip() -> None:
    elapsed = 0.0
    now = moments(two_trips(), speed=60, elapsed=lambda: elapsed)
    seen = []
    for second in range(25):
        elapsed = float(second)
        seen.append(now())
    assert seen[5] == datetime(2015, 1, 1, 12, 5)
    assert seen[10] == datetime(2015, 1, 3, 12, 0)
    assert seen[19] == datetime(2015, 1, 3, 12, 9)
    assert seen[20] is None


def test_positions_are_dated_now_and_keyed_by_vehicle() -> None:
    ((key, message),) = events(two_trips(), datetime(2015, 1, 1, 12, 5), NOW)
    assert key == "taxi_00000000"
    assert json.loads(message) == {
        "vehicle_id": "taxi_00000000",
        "timestamp": "2026-05-01T12:00:30.000Z",
        "latitude": 40.71,
        "longitude": -73.99,
        "speed": 24.0,
        "trip_id": "trip_00000000",
    }


def test_what_is_left_out_is_said(data: Path) -> None:
    loaded = load([data / "tlc" / "yellow_tripdata_2019-01.csv", data / "tlc" / "yellow_tripdata_2015-01.csv"])
    said = "\n".join(describe(loaded))
    assert "trips read" in said
    assert "rejected: incomplete" in said
    assert f"{loaded.by_zone} have zones instead of coordinates" in said


def test_real_trips_are_replayed_into_kafka(stack: Settings, data: Path) -> None:
    loaded = load([data / "tlc" / "trips_with_coordinates.parquet"])
    stop, seen = threading.Event(), list[int]()
    ensure_topics(stack.kafka, [VEHICLE_POSITIONS])

    def taxis() -> int:
        events = consume(stack, VEHICLE_POSITIONS.topic)
        return sum(event["vehicle_id"].startswith("taxi_") for event in events if "vehicle_id" in event)

    def progress(moment: datetime, sent: int) -> None:
        seen.append(sent)
        if len(seen) == 4:
            stop.set()

    before = taxis()  # of other tests
    sent = replay(loaded, stack, 60, stop, progress)
    assert sent == seen[-1] > 100
    assert taxis() - before >= sent


def test_a_replay_without_a_trip_says_so(config: Settings, tmp_path: Path) -> None:
    file = tmp_path / "trips.parquet"
    names = {"pickup_at": "pickup_datetime", "dropoff_at": "dropoff_datetime", "distance_km": "trip_distance"}
    trip(pickup_latitude=0.0).rename(names).write_parquet(file)
    with pytest.raises(ValueError, match="no trip is left"):
        play([file], config, 1, None)
