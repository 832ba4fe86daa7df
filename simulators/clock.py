"""The pace of a simulator: `rate` events a second, however long a step takes."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

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


def iso(moment: datetime) -> str:
    """Formats a moment as ISO 8601 in UTC with milliseconds: 2026-05-01T12:00:00.000Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
