"""Reads the windows of other contracts that a feature view's rows are joined with, such as the weather."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from city.contracts.model import Contract, Window
from city.contracts.schema import bronze_schema
from city.features.views import View
from city.lake import bronze_path
from city.streaming.bronze import scan
from city.streaming.windows import compute
from city.tables.model import DAY

_WINDOWS = 4
"""The number of windows that are kept. A view may use those that ended at least one window before."""


_AGAIN = timedelta(seconds=30)
"""The time after which a window that may miss events is read again."""


@dataclass
class _Windows:
    """The windows of a source that were read."""

    frames: dict[datetime, pl.DataFrame] = field(default_factory=dict)
    partial: set[datetime] = field(default_factory=set)
    """Those that may miss events, because a partition of bronze had not reached their end."""
    read_at: datetime | None = None


class Context:
    """The newest windows of a view's context sources.

    A window is read from bronze when it is over, and again while bronze has not all of its events.
    """

    def __init__(self, view: View, lake: Path) -> None:
        self._sources, self._lake = view.context(), lake
        self._windows = {name: _Windows() for name in self._sources}

    def frames(self, now: datetime) -> dict[str, pl.DataFrame]:
        """Returns the windows by source, with the column `day`, which is null. There is no row of a missing window."""
        return {name: self._read(name, contract, window, now) for name, (contract, window) in self._sources.items()}

    def _read(self, name: str, contract: Contract, window: Window, now: datetime) -> pl.DataFrame:
        seconds = int(window.every.total_seconds())
        # A fifth of a window before a view may use it, so that late events are in it.
        last = datetime.fromtimestamp(int((now - window.every * 0.8).timestamp()) // seconds * seconds, now.tzinfo)
        starts = [last - n * window.every for n in range(_WINDOWS, 0, -1)]
        known = self._windows[name]
        is_due = known.read_at is None or now >= known.read_at + _AGAIN
        missing = [start for start in starts if start not in known.frames or (is_due and start in known.partial)]
        if missing:
            events = self._events(contract, missing[0])
            computed = compute(contract, window, events.filter(pl.col(contract.event_time) < last))
            known.frames |= {start: computed.filter(pl.col("window_start") == start) for start in missing}
            known.frames = {start: known.frames[start] for start in starts}
            reached = _reached(contract, events)
            known.partial = {start for start in starts if reached is None or reached < start + window.every}
            known.read_at = now
        return pl.concat(known.frames[start] for start in starts).with_columns(pl.lit(None).alias(DAY))

    def _events(self, contract: Contract, begin: datetime) -> pl.DataFrame:
        path = bronze_path(self._lake, contract)
        if not DeltaTable.is_deltatable(str(path)):
            return pl.DataFrame(schema=bronze_schema(contract))
        return scan(path).filter(pl.col(contract.event_time) >= begin).collect()


def _reached(contract: Contract, events: pl.DataFrame) -> datetime | None:
    """Returns the time up to which all partitions have their events, or None where a partition has none."""
    newest = events.group_by("_partition").agg(pl.col(contract.event_time).max())
    if newest.height < contract.partitions:
        return None
    time = newest[contract.event_time].min()
    assert isinstance(time, datetime)
    return time
