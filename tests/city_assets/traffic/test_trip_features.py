"""Trips by cell and quarter of an hour, and their features: nothing of a row follows it."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import narwhals as nw
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from city.lake.engines.polars import with_seconds
from city.lake.lakehouse import Lakehouse
from city.settings import Settings
from city.tables.calendar import calendar
from city.tables.cell_sources import centres
from city.tables.registry import table_of
from city_assets.traffic.ingest import ingest
from city_assets.traffic.trip_features import LEAST_TRIPS, trip_cells_quarterly, trip_features
from tests.lakes import house, rows

ZONE = "America/New_York"
HERE, THERE = "882a100d2dfffff", "882a100d29fffff"
MONDAY = datetime(2015, 2, 2, 14, tzinfo=UTC)  # nine o'clock in New York
TABLES = ("silver/trips", "gold/trip_cells_quarterly", "features/trip_features")


def frame(data: pl.DataFrame) -> Any:
    return nw.from_native(with_seconds(data.lazy()))


def slots(days: list[date]) -> Any:
    return frame(calendar(days, ZONE, "US"))


def ended(at: datetime, speed: float, pickup: str = HERE, dropoff: str = HERE) -> dict[str, Any]:
    return {"dropoff_at": at, "speed": speed, "pickup_cell": pickup, "dropoff_cell": dropoff}


def quarters_of(*trips: dict[str, Any]) -> pl.DataFrame:
    columns = {name: pl.lit(None) for name in ("day", "local_hour", "weekday", "holiday", "rush_hour")}
    data = pl.DataFrame(trips).with_columns(pl.col("dropoff_at").cast(pl.Datetime("us", "UTC")), **columns)
    built = trip_cells_quarterly(frame(data), slots([MONDAY.date()]))
    collected: pl.DataFrame = built.to_native().collect()
    return collected.sort("quarter", "cell")


def test_a_trip_counts_in_the_cells_of_its_ends_when_it_has_ended() -> None:
    late, early = MONDAY + timedelta(minutes=14, seconds=59), MONDAY + timedelta(minutes=45)
    built = quarters_of(ended(late, 10.0, HERE, THERE), ended(late, 20.0), ended(early, 30.0, THERE, THERE))
    columns = built.select("quarter", "cell", "trips", "speed_mean", "local_hour", "weekday").rows()
    assert columns == [
        (MONDAY, THERE, 1, 10.0, 9, 1),
        (MONDAY, HERE, 2, 15.0, 9, 1),
        (early, THERE, 1, 30.0, 9, 1),
    ]


def test_few_trips_have_no_level() -> None:
    built = quarters_of(*[ended(MONDAY, 10.0)] * LEAST_TRIPS, *[ended(MONDAY, 30.0, THERE, THERE)] * (LEAST_TRIPS - 1))
    levels = dict(built.select("cell", "congestion").iter_rows())
    assert levels == {HERE: "high", THERE: None}


def test_a_trip_that_ends_on_the_next_day_counts_there() -> None:
    midnight = datetime(2015, 2, 2, 5, 10, tzinfo=UTC)
    assert quarters_of(ended(midnight, 10.0))["day"].to_list() == [date(2015, 2, 2)]
    assert quarters_of(ended(midnight - timedelta(minutes=11), 10.0)).is_empty(), "a row of the day before"


def quarter(at: datetime, speed: float, trips: int, cell: str = HERE) -> dict[str, Any]:
    local = at - timedelta(hours=5)
    clock = {"day": local.date(), "local_hour": local.hour, "weekday": local.isoweekday(), "rush_hour": False}
    measures = {"trips": trips, "speed_mean": speed, "speed_std": 1.0, "level_speed": None, "congestion": None}
    return {"quarter": at, "cell": cell, **clock, **measures}


def features_of(quarters: list[dict[str, Any]]) -> dict[str, Any]:
    data = pl.DataFrame(quarters).with_columns(pl.col("quarter").cast(pl.Datetime("us", "UTC")))
    pairs = pl.DataFrame({"cell": [HERE, THERE], "neighbour": [THERE, HERE]})
    built = trip_features(
        frame(data), frame(centres(pl.Series([HERE, THERE]))), frame(pairs), slots([MONDAY.date()])
    ).to_native()
    row: dict[str, Any] = built.collect().filter(pl.col("cell") == HERE, pl.col("quarter") == MONDAY).row(0, named=True)
    return row


def test_what_was_before_is_weighted_by_trips() -> None:
    before, week = timedelta(minutes=15), timedelta(days=7)
    row = features_of(
        [
            quarter(MONDAY, 10.0, 1),
            quarter(MONDAY - before, 20.0, 3),
            quarter(MONDAY - 3 * before, 30.0, 4),
            quarter(MONDAY, 40.0, 5, THERE),
            quarter(MONDAY - timedelta(days=1), 11.0, 2),
            quarter(MONDAY - week, 12.0, 1),
            quarter(MONDAY - week + 3 * before, 16.0, 3),
            quarter(MONDAY - 4 * week, 20.0, 4),
            quarter(MONDAY - 5 * week, 90.0, 9),
            quarter(MONDAY - week - timedelta(hours=1), 90.0, 9),
        ]
    )
    assert row["as_of"] == MONDAY + before
    assert (row["speed_lag_1"], row["speed_lag_2"], row["speed_lag_3"]) == (20.0, None, 30.0)
    assert (row["trips_recent"], row["speed_recent"]) == (8, (10.0 + 60.0 + 120.0) / 8)
    assert (row["speed_neighbours"], row["speed_day_before"]) == (40.0, 11.0)
    assert (row["usual_speed"], row["usual_trips"]) == ((12.0 + 48.0 + 80.0) / 8, 8 / 2 / 4)
    assert (row["local_hour"], row["weekday"], row["holiday"], row["rush_hour"]) == (9, 1, False, True)
    assert (row["latitude"], row["longitude"]) == pytest.approx((40.75, -73.98), abs=0.1)


def test_a_row_without_a_past_has_nulls() -> None:
    row = features_of([quarter(MONDAY, 10.0, 1)])
    past = ("speed_lag_1", "speed_neighbours", "speed_day_before", "usual_speed", "usual_trips")
    assert [row[name] for name in past] == [None] * 5
    assert (row["trips_recent"], row["speed_recent"]) == (1, 10.0)


@pytest.fixture
def trip_lake(config: Settings) -> Lakehouse:
    return house(config)


def build(lake: Lakehouse, file: Path) -> pl.DataFrame:
    ingest(file, lake.root, ZONE, lambda count: None)
    days = sorted(day for day in lake.rows_by_day(table_of("bronze/trips")) if day)
    for name in TABLES:
        lake.build(table_of(name), days)
    return rows(lake, TABLES[-1], "as_of", "cell")


def test_no_row_of_real_trips_knows_what_follows_it(trip_lake: Lakehouse, data: Path, tmp_path: Path) -> None:
    """Without the trips that end after a moment, the rows up to that moment are the same."""
    real = pl.read_parquet(data / "tlc" / "trips_with_coordinates.parquet")
    part = real.filter(pl.col("pickup_datetime").dt.year() == 2016)
    moment = datetime(2016, 3, 10, 7, 30)
    file, cut = tmp_path / "yellow_tripdata_2016-03.parquet", tmp_path / "new" / "yellow_tripdata_2016-03.parquet"
    cut.parent.mkdir()
    part.write_parquet(file)
    part.filter(pl.col("dropoff_datetime") < moment).write_parquet(cut)
    until = pl.col("as_of") <= moment.replace(tzinfo=UTC) + timedelta(hours=5)
    whole = build(trip_lake, file)
    known = build(trip_lake, cut)
    assert whole.height > known.height == whole.filter(until).height > 1_000
    assert_frame_equal(known, whole.filter(until))
    assert trip_lake.count(table_of(TABLES[0])) < part.height
