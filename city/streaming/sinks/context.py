"""Reads the windows of other contracts that a feature view's rows are joined with, such as the weather."""

from datetime import datetime
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


class Context:
    """The newest windows of a view's context sources. Each window is read from bronze once, when it is over."""

    def __init__(self, view: View, lake: Path) -> None:
        self._sources, self._lake = view.context(), lake
        self._windows: dict[str, dict[datetime, pl.DataFrame]] = {name: {} for name in self._sources}

    def frames(self, now: datetime) -> dict[str, pl.DataFrame]:
        """Returns the windows by source, with the column `day`, which is null. There is no row of a missing window."""
        return {name: self._read(name, contract, window, now) for name, (contract, window) in self._sources.items()}

    def _read(self, name: str, contract: Contract, window: Window, now: datetime) -> pl.DataFrame:
        seconds = int(window.every.total_seconds())
        # A fifth of a window before a view may use it, so that late events are in it.
        last = int((now - window.every * 0.8).timestamp()) // seconds * seconds
        starts = [datetime.fromtimestamp(last - n * seconds, now.tzinfo) for n in range(_WINDOWS, 0, -1)]
        known = self._windows[name]
        if missing := [start for start in starts if start not in known]:
            computed = compute(contract, window, self._events(contract, missing[0], missing[-1] + window.every))
            known |= {start: computed.filter(pl.col("window_start") == start) for start in missing}
            self._windows[name] = known = {start: known[start] for start in starts}
        return pl.concat(known[start] for start in starts).with_columns(pl.lit(None).alias(DAY))

    def _events(self, contract: Contract, begin: datetime, end: datetime) -> pl.DataFrame:
        path = bronze_path(self._lake, contract)
        if not DeltaTable.is_deltatable(str(path)):
            return pl.DataFrame(schema=bronze_schema(contract))
        time = pl.col(contract.event_time)
        return scan(path).filter((time >= begin) & (time < end)).collect()
