"""Reads the lake's tables that a view of windows is joined with: reference tables and settled tables."""

import time
from datetime import datetime, timedelta

import polars as pl

from city import local_time
from city.features.references import ReferenceSources
from city.features.views import View
from city.lake.tables import scan_table
from city.settings import Settings
from city.tables.model import DAY, Source
from city.tables.registry import table_of
from city.tables.schema import schema

_REREAD_SECONDS = 30.0
"""What a build has changed in a settled table takes effect after this."""


class StoredSources:
    """The rows of a view's reference tables and settled tables. Only one thread may use it at a time."""

    def __init__(self, view: View, config: Settings) -> None:
        self._lake, self._timezone = config.lake, config.timezone
        self._settled = {name: source for name, source in view.table.sources.items() if source.is_settled}
        self._references = ReferenceSources(view, config.lake)
        self._days: dict[str, pl.DataFrame] = {}
        self._read_at = float("-inf")

    def frames(self, newest: datetime) -> dict[str, pl.DataFrame]:
        """Returns the rows by source. Of a settled table they are those that rows at the time `newest` may use.

        A table that was never filled has no rows.
        """
        if time.monotonic() > self._read_at + _REREAD_SECONDS:
            self._days = {name: self._read_days(source, newest) for name, source in self._settled.items()}
            self._read_at = time.monotonic()
        return self._days | self._references.frames()

    def _read_days(self, source: Source, newest: datetime) -> pl.DataFrame:
        """Reads the days that rows of three days use: those of the day of `newest`, of the day before and after.

        Windows of the day before still change after midnight, and the day after may begin before the next reading. Each
        uses the newest built day before it (city.tables.settled), so no other days are kept in memory.
        """
        table = table_of(source.table)
        today = local_time.local_day(newest, self._timezone)
        recent = pl.col(DAY).is_between(today - timedelta(days=source.days_before + 1), today)
        rows = scan_table(self._lake, table).filter(recent)
        built = rows.select(pl.col(DAY).unique()).collect()[DAY]
        used = set()
        for day in (today + timedelta(days=shift) for shift in (-1, 0, 1)):
            first = day - timedelta(days=source.days_before)
            used.add(built.filter(built.is_between(first, day, closed="left")).max())
        return rows.filter(pl.col(DAY).is_in(used - {None})).select(*schema(table)).collect()
