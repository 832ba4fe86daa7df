"""Remembers for which days a table was built and has no rows, so that it is not built again without new input.

A table that learns from many rows has none on a day with few. Its Delta log does not tell such a day from one that was
never built.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

from city.lake.lakehouse import Lakehouse, lakehouse
from city.lake.snapshot import Snapshot
from city.settings import Settings
from city.stack.history_plan import replace_text
from city.tables.cell_sources import COMPUTED
from city.tables.model import Source, Table


class EmptyDays:
    """The days without rows of each table, with the state of its sources when they were built, in a file."""

    def __init__(self, config: Settings, path: Path) -> None:
        self._config, self._path = config, path
        self._states: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.exists() else {}

    def unchanged(self, table: Table, days: Sequence[date]) -> set[date]:
        """Returns those of the days for which the table was built without rows, from the same input as there is now."""
        known = self._states.get(table.id, {})
        if not known:
            return set()
        inputs = _Inputs(self._config)
        return {day for day in days if known.get(day.isoformat(), "") == inputs.state(table, day)}

    def states(self, table: Table, days: Sequence[date]) -> dict[date, str | None]:
        """Returns the state of the table's sources for each day, to be noted after a build that reads them later."""
        inputs = _Inputs(self._config)
        return {day: inputs.state(table, day) for day in days}

    def note(self, table: Table, states: Mapping[date, str | None]) -> None:
        """Notes which of the days that were just built have no rows, with the states from before the build."""
        known, rows = self._states.setdefault(table.id, {}), _Inputs(self._config).rows_by_day(table)
        for day, state in states.items():
            known.pop(day.isoformat(), None)
            if state is not None and not rows.get(day):
                known[day.isoformat()] = state
        replace_text(self._path, json.dumps(self._states))


class _Inputs:
    """The state of tables' sources at one moment, from the Delta log."""

    def __init__(self, config: Settings) -> None:
        self._house: Lakehouse = lakehouse(config)
        self._snapshot = Snapshot(config.lake)
        self._rows: dict[str, dict[date | None, int]] = {}

    def rows_by_day(self, table: Table) -> dict[date | None, int]:
        """Returns the number of rows of each day of a table."""
        if table.id not in self._rows:
            self._rows[table.id] = self._house.rows_by_day(table)
        return self._rows[table.id]

    def state(self, table: Table, day: date) -> str | None:
        """Returns a text that changes with the input of a day of the table; None where a source has no such state."""
        states = [self._state_of(source, day) for source in table.sources.values() if source.table not in COMPUTED]
        return None if None in states else " ".join([f"v{table.version}", *map(str, states)])

    def _state_of(self, source: Source, day: date) -> str | None:
        """Returns the rows of the days that are read of a source, or the version of a table that is not daily."""
        declared = self._house.tables.get(source.table)
        if declared is None:
            return None
        if declared.daily:
            days = [day - timedelta(days=ago) for ago in range(source.days_before + 1)]
            return f"{declared.id}:{','.join(str(self.rows_by_day(declared).get(read, 0)) for read in days)}"
        stored = self._snapshot.table(declared.id)
        return f"{declared.id}:v{-1 if stored is None else stored.version()}"
