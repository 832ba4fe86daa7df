"""Feature views: the tables of the layer `features`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from city.contracts.model import Contract, Window
from city.contracts.registry import contracts
from city.tables.model import DAY, Column, Table, TableError
from city.tables.registry import tables

SEPARATOR = "\x1f"
LIVE_TTL, HOURLY_TTL = timedelta(hours=1), timedelta(days=2)


@dataclass(frozen=True)
class View:
    """A feature view of a table: its entities and its features."""

    table: Table

    @property
    def name(self) -> str:
        """The table's name, with its version from the second version on."""
        return self.table.name if self.table.version == 1 else f"{self.table.name}_v{self.table.version}"

    @cached_property
    def entities(self) -> tuple[str, ...]:
        """The columns of the key that identify an entity: all but the time."""
        return tuple(name for name in self.table.key if name != self.table.time)

    @property
    def time(self) -> str:
        """The column of a row's time."""
        assert self.table.time is not None
        return self.table.time

    @cached_property
    def features(self) -> dict[str, Column]:
        """The columns that are features, by name: all but the entities, the time and the day."""
        left_out = {*self.entities, self.time, DAY}
        return {c.name: c for c in self.table.columns if c.name not in left_out}

    def windows(self, contract: Contract) -> dict[str, Window]:
        """Returns the windows of the contract that the view is made from, by source.

        Returns none where the view has other sources than windows, context, settled and reference tables.
        """
        window_tables = {f"gold/{window.name}": window for window in contract.windows}
        own = {name: s for name, s in self.table.sources.items() if not (s.is_context or s.is_settled)}
        by_source = {name: window_tables[s.table] for name, s in own.items() if s.table in window_tables}
        others = {s.table for s in own.values() if s.table not in window_tables}
        return by_source if all(other.startswith("reference/") for other in others) else {}

    def context(self) -> dict[str, tuple[Contract, Window]]:
        """Returns the windows of other contracts that the view's rows are joined with, by source.

        Raises TableError for a context that no contract has as a window.
        """
        by_table = {f"gold/{window.name}": (owner, window) for owner in contracts() for window in owner.windows}
        sources = {name: source.table for name, source in self.table.sources.items() if source.is_context}
        if unknown := sorted(set(sources.values()) - by_table.keys()):
            raise TableError(f"feature view {self.name!r}: the context {unknown[0]!r} is no window of a contract")
        return {name: by_table[table] for name, table in sources.items()}

    def events(self, contract: Contract) -> str | None:
        """Returns the source with the contract's own events, where the view has a row for each of them.

        Returns None where it has not, or where it has other sources than these events and reference tables.
        """
        if self.table.look_back is None:
            return None
        others = [s.table for s in self.table.sources.values() if s.table != f"silver/{contract.name}"]
        if len(others) == len(self.table.sources) or not all(other.startswith("reference/") for other in others):
            return None
        return next(name for name, s in self.table.sources.items() if s.table not in others)

    @property
    def ttl(self) -> timedelta:
        """The age up to which a value is served. It is short for views that the stream keeps fresh."""
        return LIVE_TTL if any(s.table.startswith("gold/") for s in self.table.sources.values()) else HOURLY_TTL


def views() -> dict[str, View]:
    """Returns every feature view, by name."""
    all_views = [View(table) for table in tables().values() if table.layer == "features"]
    return {view.name: view for view in all_views}


def view_of(name: str) -> View:
    """Returns the view of that name. Raises TableError that lists the known views."""
    by_name = views()
    if name not in by_name:
        raise TableError(f"no feature view {name!r}; known: {', '.join(sorted(by_name))}")
    return by_name[name]


def key_of(view: View, entity: Mapping[str, object]) -> str:
    """Returns the key of an entity's row. Raises TableError where a part of it is missing."""
    missing = [name for name in view.entities if name not in entity]
    if missing:
        raise TableError(f"feature view {view.name!r} needs {', '.join(view.entities)}; missing: {', '.join(missing)}")
    return SEPARATOR.join(str(entity[name]) for name in view.entities)
