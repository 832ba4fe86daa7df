"""The clocks of a replay: faster than real time, or in step with the week."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from city_assets.traffic.replay import events
from city_assets.traffic.replay_clock import in_step, running
from city_assets.traffic.trips import to_utc
from tests.city_assets.traffic.test_trips import trip

ZONE = "America/New_York"
NEW_YORK = ZoneInfo(ZONE)


def trips_at(*local: datetime, minutes: int = 10) -> pl.DataFrame:
    trips = [trip(pickup_at=begin, dropoff_at=begin + timedelta(minutes=minutes)) for begin in local]
    return to_utc(pl.concat(trips), ZONE).with_row_index("trip")


def test_a_clock_runs_faster_and_skips_hours_without_a_trip() -> None:
    elapsed = 0.0
    trips = trips_at(datetime(2015, 1, 1, 12), datetime(2015, 1, 3, 12))
    now = running(trips, speed=60, elapsed=lambda: elapsed)
    seen = []
    for second in range(25):
        elapsed = float(second)
        seen.append(now())
    assert seen[5] == datetime(2015, 1, 1, 17, 5, tzinfo=UTC)
    assert seen[10] == datetime(2015, 1, 3, 17, 0, tzinfo=UTC)
    assert seen[19] == datetime(2015, 1, 3, 17, 9, tzinfo=UTC)
    assert seen[20] is None


def test_a_trip_of_monday_at_0815_is_replayed_on_a_monday_at_0815() -> None:
    """Also where it was standard time then, and is daylight time now."""
    trips = trips_at(datetime(2015, 1, 5, 8, 15), datetime(2015, 1, 6, 8, 15))
    now = datetime(2026, 5, 3, 7, tzinfo=NEW_YORK)  # a Sunday
    clock = in_step(trips, ZONE, lambda: now)
    seen = {}
    while now < datetime(2026, 5, 20, tzinfo=NEW_YORK) and (moment := clock()) is not None:
        for key, _ in events(trips, moment, now.astimezone(UTC)):
            seen.setdefault(key, f"{now:%a %H:%M}")
        now += timedelta(minutes=1)
    assert seen == {"taxi_00000000": "Mon 08:15", "taxi_00000001": "Tue 08:15"}
    assert now == datetime(2026, 5, 5, 8, 25, tzinfo=NEW_YORK), "the end of the last trip"


def test_a_time_of_the_week_without_a_trip_is_taken_from_a_later_week() -> None:
    trips = trips_at(datetime(2015, 1, 5, 8, 15), datetime(2015, 1, 13, 9), datetime(2015, 1, 26, 9))
    now = datetime(2026, 5, 4, 9, 5, tzinfo=NEW_YORK)
    clock = in_step(trips, ZONE, lambda: now)
    assert clock() == datetime(2015, 1, 26, 14, 5, tzinfo=UTC)
    now += timedelta(minutes=10)
    assert clock() is None


def test_hours_without_any_trip_pass() -> None:
    trips = trips_at(datetime(2015, 1, 5, 8, 15), datetime(2015, 1, 6, 9))
    now = datetime(2026, 5, 4, 12, tzinfo=NEW_YORK)
    clock = in_step(trips, ZONE, lambda: now)
    assert clock() == datetime(2015, 1, 5, 17, tzinfo=UTC)
    now += timedelta(hours=21, minutes=1)
    assert clock() == datetime(2015, 1, 6, 14, 1, tzinfo=UTC)


def test_the_hour_is_kept_on_the_days_of_clock_changes() -> None:
    autumn, spring = datetime(2015, 11, 1, 12), datetime(2015, 3, 8, 12)
    trips = trips_at(spring, autumn)
    for month, day in ((3, 8), (11, 1), (6, 7)):
        now = datetime(2026, month, day, 12, 5, tzinfo=NEW_YORK)
        moment = in_step(trips, ZONE, lambda at=now: at)()  # type: ignore[misc]
        assert moment is not None
        assert f"{moment.astimezone(NEW_YORK):%a %H:%M}" == f"{now:%a %H:%M}" == "Sun 12:05"
