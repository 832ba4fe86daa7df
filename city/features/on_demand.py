"""Features that are computed at the request, from stored features and from values that only the request has."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from city.contracts.registry import domains
from city.tables.model import Column, TableError

Rows = nw.DataFrame[Any]
"""Rows in memory, of any library that narwhals knows."""


@dataclass(frozen=True, kw_only=True)
class OnDemand:
    """A view whose features are computed at the request.

    `compute` computes `columns` from `needs` (features, as `view:feature`) and from the columns of the `request`. It
    takes a frame of these by their plain names, with a row for each entity.
    """

    name: str
    description: str
    needs: tuple[str, ...]
    request: tuple[Column, ...]
    columns: tuple[Column, ...]
    compute: Callable[[Rows], Rows]

    @property
    def features(self) -> dict[str, Column]:
        """The view's features, by name."""
        return {column.name: column for column in self.columns}


def on_demand() -> dict[str, OnDemand]:
    """Returns every view that a domain declares in the ON_DEMAND of its tables.py, by name.

    Raises TableError when two views have the same name.
    """
    by_name: dict[str, OnDemand] = {}
    for domain in domains():
        for view in getattr(domain.module("tables"), "ON_DEMAND", ()):
            if view.name in by_name:
                raise TableError(f"on-demand view {view.name!r} is declared twice: rename one of them")
            by_name[view.name] = view
    return by_name
