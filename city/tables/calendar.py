"""Builds local time as a table: the local day, hour, weekday, holiday and rush hour of each quarter of an hour (UTC).

Transforms get time zones, clock changes and holidays only by a join with this table, so both engines agree on them.
Every time zone's offset is a multiple of a quarter of an hour.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

import narwhals as nw
import polars as pl

from city.local_time import bounds, holidays_of
from city.tables.model import Column, Frame
from city.tables.slices import Slices

REFERENCE_CALENDAR = "reference/calendar"
SLOT_SECONDS = 900
# Commuters' peaks of a working day, wide enough for different cities: the Port Authority of New York and New Jersey
# has its peak tolls in just these hours, and Transport for London its peak fares within them (6:30 to 9:30, 16 to 19).
_RUSH_HOURS = (*range(6, 10), *range(16, 20))

COLUMNS = (
    Column(name="day", kind="date", description="the local date"),
    Column(name="local_hour", kind="integer", unit="h", description="the local hour, 0 to 23"),
    Column(name="weekday", kind="integer", description="the local day of the week, Monday is 1"),
    Column(name="holiday", kind="string", nullable=True, description="the public holiday that the local day is"),
    Column(name="rush_hour", kind="boolean", description="a peak hour (6 to 10, 16 to 20) of a working day"),
)

# The columns by which an hourly table is grouped: the hour itself, and the calendar's columns of it.
HOUR = ("day", "hour", "local_hour", "weekday", "rush_hour")


def calendar(days: Sequence[date], timezone: str, country: str) -> pl.DataFrame:
    """Returns the slots of the given local days.

    They have `slot` (seconds since the epoch // 900), `slot_minute` (the local minute of the hour at which the slot
    begins) and COLUMNS.
    """
    if not days:
        return _build_slots(date(2000, 1, 1), date(2000, 1, 1), timezone, country).clear()
    return _build_slots(min(days), max(days), timezone, country).filter(pl.col("day").is_in(list(days)))


def span_of(slices: Slices, timezone: str, country: str) -> tuple[datetime, datetime]:
    """Returns the beginning of the first slot of the slices and the end of their last slot, in UTC."""
    if slices.hours is None:
        return bounds(slices.first, timezone)[0], bounds(slices.last, timezone)[1]
    slots = calendar(slices.days(), timezone, country).filter(pl.col("local_hour").is_in(slices.hours))["slot"]
    first, last = slots.to_list()[0], slots.to_list()[-1]
    return datetime.fromtimestamp(first * SLOT_SECONDS, UTC), datetime.fromtimestamp((last + 1) * SLOT_SECONDS, UTC)


def on_calendar(frame: Frame, time: str, calendar: Frame) -> Frame:
    """Joins rows with the calendar's columns. Rows whose `time` is not in the calendar are dropped.

    The frame needs the column `_<time>_seconds` beside `time`.
    """
    slotted = frame.with_columns(slot=nw.col(f"_{time}_seconds") // SLOT_SECONDS)
    return slotted.join(calendar, on="slot", how="inner").drop("slot")


@lru_cache(maxsize=8)
def _build_slots(first: date, last: date, timezone: str, country: str) -> pl.DataFrame:
    begin, end = bounds(first, timezone)[0], bounds(last, timezone)[1]
    holidays = holidays_of(country, first.year, last.year)
    names = pl.DataFrame({"day": list(holidays), "holiday": [str(name) for name in holidays.values()]}, _NAMES)
    utc = pl.datetime_range(begin, end, timedelta(seconds=SLOT_SECONDS), closed="left", time_zone="UTC", eager=True)
    local = pl.col("utc").dt.convert_time_zone(timezone)
    return (
        pl.DataFrame({"utc": utc})
        .select(
            slot=pl.col("utc").dt.epoch("s") // SLOT_SECONDS,
            day=local.dt.date(),
            local_hour=local.dt.hour().cast(pl.Int64),
            weekday=local.dt.weekday().cast(pl.Int64),
            slot_minute=local.dt.minute().cast(pl.Int64),
        )
        .join(names, on="day", how="left")
        .with_columns(
            rush_hour=pl.col("local_hour").is_in(_RUSH_HOURS) & (pl.col("weekday") < 6) & pl.col("holiday").is_null()
        )
    )


_NAMES = {"day": pl.Date(), "holiday": pl.String()}
