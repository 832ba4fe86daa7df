import json
import threading
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from city.settings import Settings
from city.streaming.topics import ensure_topics
from city.tables.registry import table_of
from city_assets.traffic.console import describe, play
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.ingest import ingest
from city_assets.traffic.replay import events, load, replay
from tests.city_assets.traffic.test_tracks import SPELLED
from tests.city_assets.traffic.test_trips import trip
from tests.events import NOW
from tests.lakes import house, rows
from tests.live import consume

ZONE = "America/New_York"


def two_trips() -> pl.DataFrame:
    later = timedelta(days=2)
    second = trip(pickup_at=datetime(2015, 1, 1, 12) + later, dropoff_at=datetime(2015, 1, 1, 12, 10) + later)
    return pl.concat([trip(), second]).with_row_index("trip")


SPRING, AUTUMN = (2015, 3, 8), (2015, 11, 1)


@pytest.mark.parametrize(
    ("begin", "end", "minutes"),
    [
        ((*SPRING, 1, 50), (*SPRING, 3, 10), 20),  # over the hour that the clocks skip
        ((*SPRING, 2, 10), (*SPRING, 3, 10), None),  # within it
        ((*SPRING, 1, 50), (*SPRING, 2, 10), None),
        ((*AUTUMN, 0, 50), (*AUTUMN, 1, 10), 20),
        ((*AUTUMN, 1, 10), (*AUTUMN, 1, 30), 20),  # within the hour that the clocks repeat
        ((*AUTUMN, 1, 50), (*AUTUMN, 1, 10), 20),  # from its first time to its second
        ((*AUTUMN, 1, 50), (*AUTUMN, 2, 10), 20),
        ((2015, 6, 1, 1, 50), (2015, 6, 1, 1, 10), None),  # backwards on another day
    ],
)
def test_replay_and_ingest_agree_when_the_clocks_change(
    config: Settings, tmp_path: Path, begin: tuple[int, ...], end: tuple[int, ...], minutes: int | None
) -> None:
    file = tmp_path / "trips.parquet"
    trips = trip(pickup_at=datetime(*begin), dropoff_at=datetime(*end))  # type: ignore[arg-type]
    trips.rename(SPELLED).write_parquet(file)
    lake = house(config)
    ingest(file, lake.root, ZONE, lambda rows: None)
    lake.build(table_of("silver/trips"), [datetime(*begin).date()])  # type: ignore[arg-type]
    times = ("pickup_at", "dropoff_at")
    replayed = load([file], ZONE).trips
    assert rows(lake, "silver/trips", "row").select(times).rows() == replayed.select(times).rows()
    lengths = (replayed["dropoff_at"] - replayed["pickup_at"]).to_list()
    assert lengths == ([] if minutes is None else [timedelta(minutes=minutes)])


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
    loaded = load([data / "tlc" / "yellow_tripdata_2019-01.csv", data / "tlc" / "yellow_tripdata_2015-01.csv"], ZONE)
    said = "\n".join(describe(loaded))
    assert "trips read" in said
    assert "rejected: incomplete" in said
    assert f"{loaded.by_zone} have zones instead of coordinates" in said


def test_real_trips_are_replayed_into_kafka(stack: Settings, data: Path) -> None:
    loaded = load([data / "tlc" / "trips_with_coordinates.parquet"], ZONE)
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
    trip(pickup_latitude=0.0).rename(SPELLED).write_parquet(file)
    with pytest.raises(ValueError, match="no trip is left"):
        play([file], config, 1, None)
