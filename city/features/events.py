"""Computes the rows of a view of events. The stream and the server share it, so that their features are the same."""

import time
from datetime import date, datetime, timedelta
from functools import lru_cache

import polars as pl

from city import local_time
from city.contracts.model import Contract
from city.features.plan import Plan
from city.features.views import View
from city.lake.reference import read
from city.settings import Settings
from city.tables import calendar
from city.tables.registry import table_of

LONGEST = timedelta(days=1)
"""Events that are older than this are no look-back of a view."""
_REREAD_SECONDS = 10.0  # a change that people make in a reference table takes effect after this


def calendar_of(times: pl.Series, timezone: str, country: str) -> pl.DataFrame:
    """Returns the calendar of the local days from the first to the last of some times."""
    first, last = (local_time.local_day(edge, timezone) for edge in (times.min(), times.max()))  # type: ignore[arg-type]
    return _calendar(first, last, timezone, country)


def calendar_between(first: datetime, last: datetime, timezone: str, country: str) -> pl.DataFrame:
    """Returns the slots of the calendar from the one that has the time `first` to the one that has `last`."""
    days = calendar_of(pl.Series([first, last]), timezone, country)
    low, high = (int(edge.timestamp()) // calendar.SLOT_SECONDS for edge in (first, last))
    return days.filter(pl.col("slot").is_between(low, high))


@lru_cache(maxsize=8)
def _calendar(first: date, last: date, timezone: str, country: str) -> pl.DataFrame:
    return calendar.calendar([first + timedelta(days=n) for n in range((last - first).days + 1)], timezone, country)


class EventRows:
    """Computes a view's rows for events. Only one thread may use it at a time."""

    def __init__(self, view: View, contract: Contract, config: Settings) -> None:
        self._contract, self._config = contract, config
        self._source = view.events(contract) or ""
        self._silver, self._plan = Plan(table_of(f"silver/{contract.name}")), Plan(view.table)
        self._references = {name: table_of(s.table) for name, s in view.table.sources.items() if name != self._source}
        self._read: dict[str, pl.DataFrame] = {}
        self._read_at = float("-inf")

    def compute(self, events: pl.DataFrame) -> pl.DataFrame:
        """Returns the view's rows of bronze rows, in no order. The earlier events of a key are among `events`."""
        return self._plan.run({self._source: self._transform_to_silver(events), **self._read_references()})

    def _transform_to_silver(self, rows: pl.DataFrame) -> pl.DataFrame:
        days = calendar_of(rows[self._contract.event_time], self._config.timezone, self._config.country)
        return self._silver.run({self._contract.name: rows, "calendar": days})

    def _read_references(self) -> dict[str, pl.DataFrame]:
        if time.monotonic() > self._read_at + _REREAD_SECONDS:
            self._read = {name: read(self._config.lake, table) for name, table in self._references.items()}
            self._read_at = time.monotonic()
        return self._read
