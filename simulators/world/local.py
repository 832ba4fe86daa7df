"""The local time of many moments at once: hours, days and working days, by the configured time zone and calendar."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from city import local_time
from city.arrays import Floats
from city.settings import Settings

_QUARTER = 900  # seconds: all time zones change their offset at a quarter of an hour
_EPOCH = date(1970, 1, 1)
DAY_SECONDS = 86_400


@dataclass(frozen=True)
class LocalTimes:
    """The local times of moments, an array each: `hour` (0 to 24, with a fraction), `day`, and `is_workday`.

    `day` is the number of the local day since 1970-01-01. `weekday` goes from 1, Monday, to 7.
    """

    hour: Floats
    day: NDArray[np.int64]
    weekday: NDArray[np.int64]
    is_workday: NDArray[np.bool_]


@dataclass(frozen=True)
class LocalClock:
    """The local time and public holidays of a city. The default is UTC without holidays."""

    timezone: str = "UTC"
    country: str | None = None

    @staticmethod
    def from_settings(config: Settings) -> "LocalClock":
        """Builds the clock of CITY_TIMEZONE and CITY_COUNTRY."""
        return LocalClock(config.timezone, config.country)

    def at(self, seconds: Any) -> LocalTimes:
        """Returns the local times of moments, which are seconds since 1970 in UTC (any shape)."""
        moments = np.asarray(seconds, float)
        quarters = np.floor(moments / _QUARTER).astype(np.int64)
        local = moments + _each(quarters, lambda quarter: _offset(self.timezone, quarter))
        day = np.floor(local / DAY_SECONDS).astype(np.int64)
        weekday = (day + 3) % 7 + 1
        workdays = _each(day, lambda number: _is_workday(number, self.country))
        return LocalTimes((local - day * DAY_SECONDS) / 3600, day, weekday, workdays)

    def begin(self, day: int) -> float:
        """Returns the second since 1970 at which a local day begins."""
        return local_time.bounds(to_date(day), self.timezone)[0].timestamp()


UTC_CLOCK = LocalClock()


def to_date(day: int) -> date:
    """Returns the date of a day number."""
    return _EPOCH + timedelta(days=int(day))


def _each(numbers: NDArray[np.int64], function: Callable[[int], Any]) -> NDArray[Any]:
    """Returns the values of a function for integers of any shape. It is called once for each number."""
    if not numbers.size:
        return np.array([function(0)])[:0].reshape(numbers.shape)
    low, high = int(numbers.min()), int(numbers.max())
    if high - low < numbers.size:  # a table of all numbers between is faster than a sort
        return np.array([function(number) for number in range(low, high + 1)])[numbers - low]
    known, place = np.unique(numbers, return_inverse=True)
    return np.array([function(number) for number in known.tolist()])[place].reshape(numbers.shape)


@lru_cache(maxsize=8_192)
def _offset(timezone: str, quarter: int) -> float:
    moment = datetime.fromtimestamp(quarter * _QUARTER, UTC)
    offset = moment.astimezone(local_time.zone(timezone)).utcoffset()
    assert offset is not None
    return offset.total_seconds()


@lru_cache(maxsize=1_024)
def _is_workday(day: int, country: str | None) -> bool:
    moment = to_date(day)
    return local_time.is_workday(moment, country) if country else moment.isoweekday() < 6
