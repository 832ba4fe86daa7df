"""Every layout the TLC has published, on its real files."""

import gzip
from datetime import datetime, timedelta
from pathlib import Path

import narwhals as nw
import polars as pl
import pytest

from city_assets.traffic.transforms import straight_km
from city_assets.traffic.trips import UnknownLayout, UnreadableFile, clean, positions, read_trips


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


HEAD = "tpep_pickup_datetime,tpep_dropoff_datetime,trip_distance,pickup_longitude,pickup_latitude,dropoff_longitude,\
dropoff_latitude\n"
PLACE = "1.5,-73.98,40.76,-73.97,40.75\n"


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("02/14/2017 04:08:11 PM", "02/14/2017 04:20:02 PM"),
        ("02/14/2017 16:08:11", "02/14/2017 16:20:02"),
        ("2017-02-14T16:08:11.000", "2017-02-14T16:20:02.000"),
        ("2017-02-14 16:08:11", "2017-02-14 16:20:02"),
    ],
)
def test_times_of_exports_are_read(tmp_path: Path, begin: str, end: str) -> None:
    file = tmp_path / "trips.CSV"
    file.write_text(f"{HEAD}{begin},{end},{PLACE}")
    trips = read_trips(file)
    assert trips.select("pickup_at", "dropoff_at").rows() == [
        (datetime(2017, 2, 14, 16, 8, 11), datetime(2017, 2, 14, 16, 20, 2))
    ]


def test_midnight_has_two_forms(tmp_path: Path) -> None:
    file = tmp_path / "trips.csv"
    file.write_text(f"{HEAD}02/14/2017 12:01:30 AM,02/14/2017 12:09:00 AM,{PLACE}")
    assert read_trips(file)["pickup_at"][0] == datetime(2017, 2, 14, 0, 1, 30)


@pytest.mark.parametrize("time", ["14.02.2017 16:08", "1487088491", "yesterday"])
def test_times_of_another_form_are_refused_with_the_column_and_the_form(tmp_path: Path, time: str) -> None:
    file = tmp_path / "trips.csv"
    file.write_text(f"{HEAD}{time},2017-02-14 16:20:02,{PLACE}")
    with pytest.raises(UnreadableFile, match=f"column 'tpep_pickup_datetime' has times like '{time}'; give YYYY-MM-DD"):
        read_trips(file)


def test_a_file_of_any_suffix_is_read(tmp_path: Path) -> None:
    rows = f"{HEAD}2017-02-14 16:08:11,2017-02-14 16:20:02,{PLACE}"
    compressed, upper = tmp_path / "trips.csv.gz", tmp_path / "TRIPS.PARQUET"
    compressed.write_bytes(gzip.compress(rows.encode()))
    pl.read_csv(rows.encode(), try_parse_dates=True).write_parquet(upper)
    assert read_trips(compressed).equals(read_trips(upper))
