"""Paces a simulator: calls it in small steps so that it makes `rate` events a second, whatever a step costs."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

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


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds: 2026-05-01T12:00:00.000Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
