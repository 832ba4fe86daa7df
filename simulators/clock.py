"""A simulator's time: its pace (`rate` events a second, whatever a step costs), and the city's local clock."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from city import local_time
from city.settings import Settings

Progress = Callable[[int], None]
"""Called at each step with the number of events made in it."""

STEP_SECONDS = 0.1
_LONGEST_GAP = 1.0  # after a pause of the machine, events that would have been are not made up for


def ignore(count: int) -> None:
    """The progress of a simulator that nobody watches."""


def pace(rate: float, stop: threading.Event, step: Callable[[datetime, int], None]) -> None:
    """Calls `step(now, count)` every STEP_SECONDS until `stop`."""
    owed, last = 0.0, time.monotonic()
    while not stop.wait(STEP_SECONDS):
        now = time.monotonic()
        owed += rate * min(now - last, _LONGEST_GAP)
        last = now
        step(datetime.now(UTC), int(owed))
        owed -= int(owed)


@dataclass(frozen=True)
class LocalTime:
    """A moment on the city's clocks: `hour` from 0 to 24, minutes as a fraction."""

    hour: float
    is_weekend: bool
    is_workday: bool


@dataclass(frozen=True)
class LocalClock:
    """Local time and public holidays of a city; of UTC, without holidays, where nothing is said."""

    timezone: str = "UTC"
    country: str | None = None

    @staticmethod
    def of(config: Settings) -> "LocalClock":
        return LocalClock(config.timezone, config.country)

    def at(self, moment: datetime) -> LocalTime:
        local = moment.astimezone(local_time.zone(self.timezone))
        is_weekend = local.weekday() >= 5
        is_workday = local_time.is_workday(local.date(), self.country) if self.country else not is_weekend
        return LocalTime(local.hour + local.minute / 60, is_weekend, is_workday)


UTC_CLOCK = LocalClock()


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds: 2026-05-01T12:00:00.000Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
