"""The calendar table: local time as the time zone database has it."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import narwhals as nw
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from city.local_time import bounds, is_workday
from city.tables.calendar import COLUMNS, HOUR, SLOT_SECONDS, calendar, on_calendar, span_of
from city.tables.slices import Slices

PLACES = (
    ("America/New_York", "US"),
    ("Europe/Berlin", "DE"),
    ("Asia/Kolkata", "IN"),  # half an hour off
    ("Asia/Kathmandu", "NP"),  # three quarters
    ("Australia/Lord_Howe", "AU"),  # clocks change by half an hour
    ("America/Santiago", "CL"),  # days begin at one o'clock when clocks go forward
)


@settings(max_examples=60, deadline=None)
@given(place=st.sampled_from(PLACES), days=st.lists(st.dates(date(2024, 1, 1), date(2027, 12, 31)), max_size=2))
def test_each_slot_has_the_local_time_of_its_beginning(place: tuple[str, str], days: list[date]) -> None:
    timezone, country = place
    if days and max(days) - min(days) > timedelta(days=60):
        days = days[:1]
    rows = calendar(days, timezone, country)
    assert set(rows.columns) == {"slot", "slot_minute", *(column.name for column in COLUMNS)}
    expected = [
        int(begin.timestamp()) // SLOT_SECONDS + n
        for begin, end in (bounds(day, timezone) for day in sorted(set(days)))
        for n in range(int((end - begin).total_seconds()) // SLOT_SECONDS)
    ]
    assert rows["slot"].to_list() == expected
    for row in rows.iter_rows(named=True):
        local = datetime.fromtimestamp(row["slot"] * SLOT_SECONDS, UTC).astimezone(ZoneInfo(timezone))
        assert (row["day"], row["local_hour"], row["weekday"]) == (local.date(), local.hour, local.isoweekday())
        assert row["slot_minute"] == local.minute
        is_peak = 6 <= local.hour < 10 or 16 <= local.hour < 20
        assert row["rush_hour"] == (is_peak and is_workday(local.date(), country)), row
        assert (row["holiday"] is not None) == (not is_workday(local.date(), country)) or local.isoweekday() > 5, row


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 8), 23), (date(2026, 11, 1), 25), (date(2026, 5, 4), 24)])
def test_a_day_is_an_hour_shorter_or_longer_where_the_clocks_change(day: date, hours: int) -> None:
    assert calendar([day], "America/New_York", "US").height == hours * 4


def test_rows_get_the_calendar_of_their_time_and_those_of_other_days_are_dropped() -> None:
    day = date(2026, 7, 3)  # the Fourth is a Saturday in 2026, so the third is a holiday
    begin, end = bounds(day, "America/New_York")
    times = [
        begin - timedelta(seconds=1),
        begin,
        begin + timedelta(hours=8, minutes=59),
        end - timedelta(seconds=1),
        end,
    ]
    events = pl.DataFrame({"n": range(5), "_at_seconds": [int(t.timestamp()) for t in times]})
    slots = calendar([day], "America/New_York", "US")
    joined = on_calendar(nw.from_native(events.lazy()), "at", nw.from_native(slots.lazy())).sort("n")
    rows = joined.collect().to_native()
    assert rows["n"].to_list() == [1, 2, 3]
    assert rows["local_hour"].to_list() == [0, 8, 23]
    assert "slot" not in rows.columns
    assert all("Independence Day" in name for name in rows["holiday"])
    assert not rows["rush_hour"].any(), "a holiday has no peak hours"


def test_hourly_tables_are_grouped_by_columns_that_the_calendar_has() -> None:
    assert set(HOUR) - {"hour"} <= {column.name for column in COLUMNS}


def test_hours_have_a_span_also_when_the_clock_is_set_back() -> None:
    day, zone = date(2026, 11, 1), "America/New_York"
    for hours, begin, end in (((1,), 5, 7), ((0, 1), 4, 7), ((2,), 7, 8), ((0, 23), 4, 29), (None, 4, 29)):
        span = span_of(Slices(day, day, hours), zone, "US")
        midnight = datetime(2026, 11, 1, tzinfo=UTC)
        assert span == (midnight + timedelta(hours=begin), midnight + timedelta(hours=end))
