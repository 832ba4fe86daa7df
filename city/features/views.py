"""What a table of the layer `features` is as a feature view."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from city.contracts.model import Contract, Window
from city.tables.model import DAY, Column, Table, TableError
from city.tables.registry import tables

SEPARATOR = "\x1f"
LIVE_TTL, HOURLY_TTL = timedelta(hours=1), timedelta(days=2)


@dataclass(frozen=True)
class View:
    """A feature view: the entities it is about, and its features."""

    table: Table

    @property
    def name(self) -> str:
        """With its version, from the second on."""
        return self.table.name if self.table.version == 1 else f"{self.table.name}_v{self.table.version}"

    @cached_property
    def entities(self) -> tuple[str, ...]:
        return tuple(name for name in self.table.key if name != self.table.time)

    @property
    def time(self) -> str:
        assert self.table.time is not None
        return self.table.time

    @cached_property
    def features(self) -> dict[str, Column]:
        left_out = {*self.entities, self.time, DAY}
        return {c.name: c for c in self.table.columns if c.name not in left_out}

    def windows(self, contract: Contract) -> dict[str, Window]:
        """By source, the windows of the contract that the view is made from; empty where it is made otherwise."""
        named = {f"gold/{window.name}": window for window in contract.windows}
        found = {name: named[s.table] for name, s in self.table.sources.items() if s.table in named}
        others = {s.table for s in self.table.sources.values() if s.table not in named}
        return found if all(other.startswith("reference/") for other in others) else {}

    def events(self, contract: Contract) -> str | None:
        """The source that is the contract's own events, where the view has a row for each of them."""
        if self.table.look_back is None:
            return None
        others = [s.table for s in self.table.sources.values() if s.table != f"silver/{contract.name}"]
        if len(others) == len(self.table.sources) or not all(other.startswith("reference/") for other in others):
            return None
        return next(name for name, s in self.table.sources.items() if s.table not in others)

    @property
    def ttl(self) -> timedelta:
        """How old a value may be to be given out: short for what the stream keeps fresh."""
        return LIVE_TTL if any(s.table.startswith("gold/") for s in self.table.sources.values()) else HOURLY_TTL


def views() -> dict[str, View]:
    """Every feature view, by name."""
    found = [View(table) for table in tables().values() if table.layer == "features"]
    return {view.name: view for view in found}


def view_of(name: str) -> View:
    """Raises TableError that lists the known ones."""
    known = views()
    if name not in known:
        raise TableError(f"no feature view {name!r}; known: {', '.join(sorted(known))}")
    return known[name]


def key_of(view: View, entity: Mapping[str, object]) -> str:
    """The key of an entity's row. Raises TableError where a part of it is missing."""
    missing = [name for name in view.entities if name not in entity]
    if missing:
        raise TableError(f"feature view {view.name!r} needs {', '.join(view.entities)}; missing: {', '.join(missing)}")
    return SEPARATOR.join(str(entity[name]) for name in view.entities)
