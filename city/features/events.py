"""Computes the rows of a view of events. The stream and the server share it, so that their features are the same."""

from datetime import date, datetime, timedelta
from functools import lru_cache

import polars as pl

from city import local_time
from city.contracts.model import Contract
from city.features.plan import Plan
from city.features.references import ReferenceSources
from city.features.views import View
from city.settings import Settings
from city.tables import calendar
from city.tables.registry import table_of

LONGEST = timedelta(days=1)
"""Events that are older than this are no look-back of a view."""


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
        self._references = ReferenceSources(view, config.lake)

    def compute(self, events: pl.DataFrame) -> pl.DataFrame:
        """Returns the view's rows of bronze rows, in no order. The earlier events of a key are among `events`."""
        return self._plan.run({self._source: self._transform_to_silver(events), **self._references.frames()})

    def _transform_to_silver(self, rows: pl.DataFrame) -> pl.DataFrame:
        days = calendar_of(rows[self._contract.event_time], self._config.timezone, self._config.country)
        return self._silver.run({self._contract.name: rows, "calendar": days})
