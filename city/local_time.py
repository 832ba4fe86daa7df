"""Computes local days, time zones and public holidays, for code that needs no table of them (and no Polars)."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo


def bounds(day: date, timezone: str) -> tuple[datetime, datetime]:
    """Returns the start of the local day and of the next one, in UTC. They are 23, 24 or 25 hours apart."""
    at = ZoneInfo(timezone)
    begin, end = (datetime.combine(d, time(), at) for d in (day, day + timedelta(days=1)))
    return begin.astimezone(UTC), end.astimezone(UTC)


@lru_cache(maxsize=1)
def machine_zone() -> str:
    """Returns the name of this machine's time zone: TZ, or what the system is set to; UTC where that has no name."""
    import tzlocal

    try:
        return tzlocal.get_localzone_name() or "UTC"
    except (OSError, ValueError, KeyError):
        return "UTC"


def zone(timezone: str) -> ZoneInfo:
    """Returns the time zone of this name. Raises ZoneInfoNotFoundError."""
    return ZoneInfo(timezone)


def local_day(moment: datetime, timezone: str) -> date:
    """Returns the local day of a moment, which has a time zone."""
    return moment.astimezone(ZoneInfo(timezone)).date()


@lru_cache(maxsize=64)
def is_workday(day: date, country: str) -> bool:
    """Returns whether the day is neither on a weekend nor a public holiday."""
    return day.isoweekday() < 6 and day not in holidays_of(country, day.year, day.year)


def holidays_of(country: str, first_year: int, last_year: int) -> Mapping[date, str]:
    """Returns the public holidays of a country (a code of the package holidays), by day."""
    import holidays

    return holidays.country_holidays(country, years=range(first_year, last_year + 1))
