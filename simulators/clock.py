"""The pace of a simulator (`rate` events a second, however long a step takes), and the city's local clock."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from city import local_time
from city.settings import Settings

Progress = Callable[[int], None]
"""A function that is called at each step with the number of its events."""

STEP_SECONDS = 0.1
"""The time between two steps of `pace`."""
_LONGEST_GAP = 1.0  # seconds: after a longer pause of the machine, the missed events are not made up for


def ignore(count: int) -> None:
    """Does nothing: the progress function of a simulator that nobody watches."""


def pace(rate: float, stop: threading.Event, step: Callable[[datetime, int], None]) -> None:
    """Calls `step(now, count)` every STEP_SECONDS until `stop` is set.

    The counts add up to `rate` events a second.
    """
    owed, last = 0.0, time.monotonic()
    while not stop.wait(STEP_SECONDS):
        now = time.monotonic()
        owed += rate * min(now - last, _LONGEST_GAP)
        last = now
        step(datetime.now(UTC), int(owed))
        owed -= int(owed)


@dataclass(frozen=True)
class LocalTime:
    """A moment in the city's local time. `hour` is from 0 to 24, with the minutes as a fraction."""

    hour: float
    is_weekend: bool
    is_workday: bool


@dataclass(frozen=True)
class LocalClock:
    """The local time and public holidays of a city. The default is UTC without holidays."""

    timezone: str = "UTC"
    country: str | None = None

    @staticmethod
    def from_settings(config: Settings) -> "LocalClock":
        """Builds the clock of CITY_TIMEZONE and CITY_COUNTRY."""
        return LocalClock(config.timezone, config.country)

    def at(self, moment: datetime) -> LocalTime:
        """Returns the local time of a moment."""
        local = moment.astimezone(local_time.zone(self.timezone))
        is_weekend = local.weekday() >= 5
        is_workday = local_time.is_workday(local.date(), self.country) if self.country else not is_weekend
        return LocalTime(local.hour + local.minute / 60, is_weekend, is_workday)


UTC_CLOCK = LocalClock()


def iso(moment: datetime) -> str:
    """Formats a moment as ISO 8601 in UTC with milliseconds: 2026-05-01T12:00:00.000Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
