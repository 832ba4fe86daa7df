"""Every layout the TLC has published, on its real files."""

from datetime import datetime, timedelta
from pathlib import Path

import narwhals as nw
import polars as pl
import pytest

from city_assets.traffic.transforms import straight_km
from city_assets.traffic.trips import UnknownLayout, clean, positions, read_trips


def test_every_layout_from_2009_to_2020_is_read(data: Path) -> None:
    files = sorted((data / "tlc").glob("yellow_tripdata_*.csv"))
    assert len(files) == 20
    for file in files:
        trips = read_trips(file)
        # Each file's last row is cut off in the middle; all others have both times and a distance.
        assert trips.height >= 2, file
        assert trips.head(-1)["pickup_at"].null_count() == 0, file
        assert trips["distance_km"].drop_nulls().max() > 0.1, file  # type: ignore[operator]
        assert file.stem[-7:] in trips["pickup_at"].drop_nulls().dt.strftime("%Y-%m").to_list(), file
        by_zone = int(file.stem[-7:-3]) >= 2017
        assert trips["by_zone"].all() == by_zone, file
        located = trips.filter(
            pl.col("pickup_latitude").is_between(40, 42), pl.col("dropoff_longitude").is_between(-75, -73)
        )
        assert located.height >= 1, file


def test_trips_by_zone_need_the_table_of_zones(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "trips.csv"
    file.write_bytes((data / "tlc" / "yellow_tripdata_2019-01.csv").read_bytes())
    with pytest.raises(FileNotFoundError, match="zones, not coordinates.*--zones"):
        read_trips(file)
    assert read_trips(file, data / "tlc" / "taxi_zone_centers.csv")["by_zone"].all()


def test_what_is_no_file_of_trips_is_named(tmp_path: Path) -> None:
    file = tmp_path / "other.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(
        UnknownLayout, match=r"other.csv is not a file of yellow-taxi trips: it has no column for pickup_at"
    ):
        read_trips(file)
    with pytest.raises(FileNotFoundError, match="city data tlc"):
        read_trips(tmp_path / "none.csv")


def test_the_dirt_of_68416_real_trips_is_counted_by_reason(data: Path) -> None:
    trips = read_trips(data / "tlc" / "trips_with_coordinates.parquet")
    good, rejected = clean(trips)
    assert trips.height == 68_416
    assert good.height + sum(rejected.values()) == 68_416
    assert 0.94 < good.height / trips.height < 0.98  # the data's own flag says 65,799
    assert rejected["outside the area"] > 500
    assert {"ends before it begins", "takes no time", "too fast", "goes nowhere"} <= rejected.keys()
    hours = (good["dropoff_at"] - good["pickup_at"]).dt.total_seconds() / 3600
    assert (good["distance_km"] / hours).max() <= 120  # type: ignore[operator]
    assert good["pickup_at"].is_sorted()


def trip(**changes: object) -> pl.DataFrame:
    row = {
        "pickup_at": datetime(2015, 1, 1, 12),
        "dropoff_at": datetime(2015, 1, 1, 12, 10),
        "pickup_latitude": 40.70,
        "pickup_longitude": -74.00,
        "dropoff_latitude": 40.72,
        "dropoff_longitude": -73.98,
        "distance_km": 4.0,
        "by_zone": False,
    }
    return pl.DataFrame([row | changes])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"distance_km": None}, "incomplete"),
        ({"pickup_latitude": 0.0}, "outside the area"),
        ({"dropoff_at": datetime(2015, 1, 1, 11)}, "ends before it begins"),
        ({"dropoff_at": datetime(2015, 1, 1, 12)}, "takes no time"),
        ({"dropoff_at": datetime(2015, 1, 1, 16)}, "longer than 3 hours"),
        ({"dropoff_latitude": 40.70, "dropoff_longitude": -74.00, "distance_km": 0.0}, "goes nowhere"),
        ({"distance_km": -1.0}, "negative distance"),
        ({"distance_km": 50.0}, "too fast"),
        ({"dropoff_latitude": 41.0, "dropoff_at": datetime(2015, 1, 1, 12, 5)}, "too fast"),
    ],
)
def test_each_kind_of_dirt_has_its_reason(changes: dict[str, object], reason: str) -> None:
    assert clean(trip(**changes))[1] == {reason: 1}


def test_a_vehicle_moves_from_one_end_to_the_other() -> None:
    start = datetime(2015, 1, 1, 12)
    halfway = positions(trip(), start + timedelta(minutes=5)).row(0, named=True)
    assert (halfway["latitude"], halfway["longitude"], halfway["speed"]) == (40.71, -73.99, 24.0)
    assert positions(trip(), start)["latitude"].to_list() == [40.70]
    assert positions(trip(), start - timedelta(seconds=1)).is_empty()
    assert positions(trip(), start + timedelta(minutes=10)).is_empty()
    assert nw.from_native(trip()).select(km=straight_km())["km"][0] == pytest.approx(2.79, abs=0.02)
