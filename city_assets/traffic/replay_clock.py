"""The clocks of a replay: which moment of the recorded trips (UTC) is shown now."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import polars as pl

from city import local_time

Clock = Callable[[], datetime | None]
"""Returns the current moment of the recording, or None after its last drop-off."""
_WEEK = timedelta(weeks=1)


def running(trips: pl.DataFrame, speed: float, elapsed: Callable[[], float]) -> Clock:
    """Returns a clock that begins with the first trip and runs `speed` times as fast as `elapsed` (seconds).

    It skips times without a trip. Hours and weekdays are not those of today.
    """
    ends = trips["dropoff_at"].cum_max()
    pickups = trips["pickup_at"]
    skipped = timedelta()
    first, last = pickups[0], ends[-1]

    def now() -> datetime | None:
        nonlocal skipped
        moment = first + timedelta(seconds=elapsed() * speed) + skipped
        if moment >= last:
            return None
        begun = int(pickups.search_sorted(moment, side="right"))
        if begun and ends[begun - 1] <= moment:
            skipped += pickups[begun] - moment
            moment = pickups[begun]
        return moment

    return now


def in_step(trips: pl.DataFrame, timezone: str, now: Callable[[], datetime]) -> Clock:
    """Returns a clock in step with `now`: the recording's local hour and weekday are today's.

    A trip of a Monday at 08:15 is shown on a Monday at 08:15, local time, also where one of them is daylight time. The
    clock begins in the first week of the recording, which it waits for where the recording is over at this time of its
    first week. Where no trip is under way, it goes on to the next week that has one at this time, if there is one.
    """
    at = local_time.zone(timezone)
    ends = trips["dropoff_at"].cum_max()
    pickups = trips["pickup_at"]
    first = pickups[0].astimezone(at).replace(tzinfo=None)
    weeks = (now().astimezone(at).replace(tzinfo=None) - first) // _WEEK

    def moment_before(count: int) -> datetime:
        local = now().astimezone(at)
        return (local.replace(tzinfo=None) - count * _WEEK).replace(tzinfo=at, fold=local.fold).astimezone(UTC)

    if moment_before(weeks) >= ends[-1]:
        weeks += 1

    def is_under_way(moment: datetime) -> bool:
        begun = int(pickups.search_sorted(moment, side="right"))
        return begun > 0 and bool(ends[begun - 1] > moment)

    def clock() -> datetime | None:
        nonlocal weeks
        moment = moment_before(weeks)
        count = weeks
        while moment < ends[-1]:
            if is_under_way(moment):
                weeks = count
                return moment
            count -= 1
            moment = moment_before(count)
        moment = moment_before(weeks)
        return moment if moment < ends[-1] else None

    return clock
