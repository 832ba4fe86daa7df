"""Months of trips into bronze, silver and gold: once each, bounded, and cleaned."""

import gzip
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from city.settings import Settings
from city.tables.registry import table_of
from city_assets.traffic import ingest as ingesting
from city_assets.traffic.ingest import ingest, shape
from city_assets.traffic.trips import clean, read_trips
from tests.lakes import house, rows

ZONE = "America/New_York"
GOLD = ("gold/trip_cells_hourly", "gold/trip_flows_daily", "gold/trip_hotspots_daily")


@pytest.fixture
def real(data: Path) -> Path:
    return data / "tlc" / "trips_with_coordinates.parquet"


def test_a_file_is_in_bronze_once_however_often_it_comes(config: Settings, real: Path, tmp_path: Path) -> None:
    counts: list[int] = []
    first = ingest(real, config.lake, ZONE, counts.append)
    assert (first.rows, counts[-1]) == (68_416, 68_416)
    again = ingest(real, config.lake, ZONE, counts.append)
    renamed = tmp_path / "renamed.parquet"
    renamed.write_bytes(real.read_bytes())
    assert [again.rows, ingest(renamed, config.lake, ZONE, counts.append).rows] == [0, 0]
    assert DeltaTable(config.lake / "bronze/trips").count() == 68_416


MONTH = """VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,trip_distance,pickup_longitude,pickup_latitude,\
dropoff_longitude,dropoff_latitude
2,2016-06-09 21:10:00,2016-06-09 21:16:30,.80,-73.9834,40.7609,-73.9775,40.7540
1,2016-06-10 21:12:00,2016-06-10 21:40:00,5.2,-73.9817,40.7367,-73.9816,40.6702
"""


def written(folder: Path, name: str, content: str = MONTH) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    return folder / name


def in_bronze(config: Settings) -> list[tuple[str, float]]:
    return sorted(pl.read_delta(str(config.lake / "bronze/trips")).select("file", "distance_km").iter_rows())


def test_a_corrected_month_replaces_the_month_whatever_its_suffix(config: Settings, tmp_path: Path) -> None:
    def load(path: Path) -> tuple[int, int, str, str]:
        file = ingest(path, config.lake, ZONE, lambda rows: None)
        return file.rows, file.replaced, str(file.first), str(file.last)

    other = load(written(tmp_path, "yellow_tripdata_2016-07.csv", MONTH.replace("2016-06", "2016-07")))
    first = written(tmp_path, "yellow_tripdata_2016-06.csv")
    corrected = written(tmp_path / "new", "yellow_tripdata_2016-06.CSV.gz", MONTH.splitlines()[0] + "\n" + (
        "2,2016-06-09 21:10:00,2016-06-09 21:16:30,.90,-73.9834,40.7609,-73.9775,40.7540\n"
    ))  # fmt: skip
    assert other[:2] == load(first)[:2] == (2, 0)
    assert load(corrected) == (1, 2, "2016-06-09", "2016-06-10"), "a day has lost its trip, and is built again too"
    assert [name for name, _ in in_bronze(config)] == [corrected.name, *["yellow_tripdata_2016-07.csv"] * 2]
    assert load(corrected)[:2] == (0, 0)
    assert load(first)[:2] == (2, 1), "a correction that is taken back"
    assert len(in_bronze(config)) == 4


def test_a_load_that_dies_leaves_nothing_and_is_done_whole_the_next_time(
    config: Settings, real: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingesting, "_BATCH", 5_000)

    def die(rows: int) -> None:
        if rows > 20_000:
            raise KeyboardInterrupt

    with pytest.raises(BaseException):  # noqa: B017, PT011  # the writer hands an interrupt on as an error of its own
        ingest(real, config.lake, ZONE, die)
    assert DeltaTable(config.lake / "bronze/trips").count() == 0
    assert ingest(real, config.lake, ZONE, lambda rows: None).rows == 68_416


def test_the_trips_that_can_have_happened_are_those_of_the_replay(config: Settings, real: Path) -> None:
    lake = house(config)
    ingest(real, lake.root, ZONE, lambda rows: None)
    days = sorted(day for day in lake.rows_by_day(table_of("bronze/trips")) if day)
    for name in ("silver/trips", *GOLD):
        lake.build(table_of(name), days)
    good, _ = clean(read_trips(real))
    silver = rows(lake, "silver/trips", "row")
    assert silver.height == good.height
    assert silver["speed"].max() <= 120  # type: ignore[operator]
    hourly, flows, spots = (pl.read_delta(str(lake.path(name))) for name in GOLD)
    assert hourly["trips"].sum() == flows["trips"].sum() == silver.height
    assert set(hourly["congestion"]) == {"low", "medium", "high"}
    busiest = spots.filter(pl.col("day") == days[0]).sort("rank").row(0, named=True)
    of_day = silver.filter(pl.col("day") == days[0])
    counts = pl.concat([of_day["pickup_cell"], of_day["dropoff_cell"]]).value_counts(sort=True)
    assert busiest["pickups"] + busiest["dropoffs"] == counts["count"][0]
    assert spots.group_by("day").len()["len"].max() >= 50  # type: ignore[operator]


def test_local_times_are_told_apart_when_the_clocks_change() -> None:
    times = [datetime(2015, 3, 8, 1, 30), datetime(2015, 3, 8, 2, 30), datetime(2015, 11, 1, 1, 30)]
    trips = pl.LazyFrame({"pickup_at": times, "dropoff_at": times, "by_zone": [False] * 3}).with_columns(
        *(
            pl.lit(40.75 if "latitude" in name else -73.98).alias(name)
            for name in ("pickup_latitude", "pickup_longitude", "dropoff_latitude", "dropoff_longitude")
        ),
        distance_km=pl.lit(1.0),
    )
    shaped = shape(trips, "f", ZONE).collect()
    assert shaped["pickup_at"].dt.strftime("%H:%M").to_list() == ["06:30", None, "05:30"]
    assert shaped["day"].to_list() == [date(2015, 3, 8)] * 2 + [date(2015, 11, 1)]
    assert shaped["pickup_cell"].n_unique() == 1
