"""Features computed when they are asked for: from stored ones, and from what only the request knows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from city.contracts.registry import domains
from city.tables.model import Column, TableError


@dataclass(frozen=True, kw_only=True)
class OnDemand:
    """A view whose `columns` are computed by `compute` from `needs` (features, as `view:feature`) and from the
    `request`'s columns. `compute` is given a frame of these by their plain names, a row for each entity."""

    name: str
    means: str
    needs: tuple[str, ...]
    request: tuple[Column, ...]
    columns: tuple[Column, ...]
    compute: Callable[[nw.DataFrame[Any]], nw.DataFrame[Any]]

    @property
    def features(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}


def on_demand() -> dict[str, OnDemand]:
    """Every view that a domain declares in the ON_DEMAND of its tables.py, by name."""
    found: dict[str, OnDemand] = {}
    for domain in domains():
        for view in getattr(domain.module("tables"), "ON_DEMAND", ()):
            if view.name in found:
                raise TableError(f"on-demand view {view.name!r} is declared twice: rename one of them")
            found[view.name] = view
    return found
