"""Positions along trips, by local day."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from city_assets.traffic.tracks import Period, TripDays
from tests.city_assets.traffic.test_trips import trip

ZONE = "America/New_York"
MINUTE = timedelta(minutes=1)
PERIOD = Period(datetime(2026, 1, 1))
SPELLED = {"pickup_at": "pickup_datetime", "dropoff_at": "dropoff_datetime", "distance_km": "trip_distance"}


def trip_days(folder: Path, *trips: pl.DataFrame, period: Period = PERIOD, name: str = "trips.parquet") -> TripDays:
    file = folder / name
    miles = pl.concat(trips).with_columns(distance_km=pl.col("distance_km") / 1.609344)
    miles.drop("by_zone").rename(SPELLED).write_parquet(file)
    days = TripDays(folder / "days", ZONE)
    days.add(file, period, None, lambda count: None)
    return days


def test_a_trip_has_a_position_each_minute_on_its_way(tmp_path: Path) -> None:
    days = trip_days(tmp_path, trip())
    assert days.days() == [date(2015, 1, 1)]
    rows = days.positions(date(2015, 1, 1), MINUTE)
    assert rows["timestamp"].to_list() == [datetime(2015, 1, 1, 17, n, tzinfo=UTC) for n in range(10)]
    assert rows["latitude"].to_list() == pytest.approx([40.70 + 0.002 * n for n in range(10)])
    assert rows["longitude"].to_list() == pytest.approx([-74.00 + 0.002 * n for n in range(10)])
    assert set(rows["speed"]) == {24.0}
    assert set(rows["vehicle_id"]) == {"taxi_20150101_0000000"}
    assert set(rows["trip_id"]) == {"trip_20150101_0000000"}
    assert days.positions(date(2015, 1, 1), 4 * MINUTE)["timestamp"].dt.minute().to_list() == [0, 4, 8]


def test_a_trip_over_midnight_is_on_both_days(tmp_path: Path) -> None:
    night = trip(pickup_at=datetime(2015, 1, 1, 23, 55), dropoff_at=datetime(2015, 1, 2, 0, 5))
    days = trip_days(tmp_path, night, trip(pickup_at=datetime(2015, 1, 2, 12), dropoff_at=datetime(2015, 1, 2, 12, 3)))
    first, second = (days.positions(date(2015, 1, n), MINUTE) for n in (1, 2))
    assert (first.height, second.height, days.cut) == (5, 8, 0)
    assert first["timestamp"].max() == datetime(2015, 1, 2, 4, 59, tzinfo=UTC)
    assert second["timestamp"].min() == datetime(2015, 1, 2, 5, tzinfo=UTC)
    assert "taxi_20150101_0000000" in second["vehicle_id"].to_list()
    alone = trip_days(tmp_path / "days" / "2015-01-02", night)
    assert alone.positions(date(2015, 1, 1), MINUTE).height == 5
    assert alone.cut == 5


def test_the_order_of_the_trips_changes_nothing(tmp_path: Path) -> None:
    trips = [trip(distance_km=1.0 + n) for n in range(4)]
    tracks = []
    for name, order in (("one", trips), ("two", [*reversed(trips), trips[0]])):
        (tmp_path / name).mkdir()
        days = trip_days(tmp_path / name, *order)
        tracks.append(days.positions(date(2015, 1, 1), MINUTE))
        assert days.repeated == len(order) - 4
    assert_frame_equal(*tracks)
    assert tracks[0].height == 40
    assert tracks[0]["vehicle_id"].n_unique() == 4


def test_trips_of_another_time_are_left_out_with_their_reason(tmp_path: Path) -> None:
    def on(day: date, hour: int = 12) -> pl.DataFrame:
        pickup = datetime(day.year, day.month, day.day, hour, 30)
        return trip(pickup_at=pickup, dropoff_at=pickup + timedelta(minutes=50))

    trips = [on(date(*day)) for day in ((2015, 3, 7), (2015, 3, 9), (2015, 4, 1), (2008, 12, 31), (2031, 1, 1))]
    period = Period(datetime(2026, 1, 1), first=date(2015, 3, 8))
    days = trip_days(tmp_path, *trips, on(date(2015, 3, 8), hour=2), period=period, name="tripdata_2015-03.parquet")
    assert days.days() == [date(2015, 3, 9)]
    assert days.rejected == {
        "in the future": 1,
        "before 2009-01-01": 1,
        "not of 2015-03, the month of the file": 1,
        "not of the days from --first to --last": 1,
        "in an hour that the clocks skip": 1,
    }
    assert (days.read, days.kept) == (6, 1)


def test_a_trip_over_the_repeated_hour_is_read_as_the_shortest(tmp_path: Path) -> None:
    across = trip(pickup_at=datetime(2015, 11, 1, 1, 50), dropoff_at=datetime(2015, 11, 1, 2, 10))
    days = trip_days(tmp_path, across)
    assert days.positions(date(2015, 11, 1), MINUTE).height == 20
    assert days.positions(date(2015, 11, 1), MINUTE)["speed"][0] == pytest.approx(12.0)
