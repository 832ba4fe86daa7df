"""Reads online features for serving: views are resolved once, entities are read in bulk."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import narwhals as nw
import polars as pl

from city.features.on_demand import OnDemand, on_demand
from city.features.online import Features, OnlineStore
from city.features.views import View, key_of, view_of
from city.tables.model import Column, TableError


@dataclass(frozen=True)
class _ViewSelection:
    """The features of one stored view that are read, and which of them are timestamps."""

    view: View
    names: tuple[str, ...]
    timestamps: frozenset[str]


def is_unknown(features: Mapping[str, object]) -> bool:
    """Whether all features of an entity are None, as FeatureReader returns them.

    That is where the store has no row of the entity, or no row that is fresh enough.
    """
    return all(value is None for value in features.values())


class FeatureReader:
    """Reads a fixed list of features, named `view:feature` (or `view` for all features of the view).

    An on-demand view is named like any other; `read` then takes the values that it needs from the request. `read`
    returns a dictionary by feature name for each entity. A feature is None where the entity is unknown, or where its
    row is older than the view's time to live. Raises TableError for an unknown view or feature.
    """

    def __init__(self, store: OnlineStore, features: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        computed = on_demand()
        self._computed: dict[OnDemand, list[str]] = {}
        stored: list[str] = []
        for name in features:
            view, _, feature = name.partition(":")
            if view in computed:
                names = _select_features(view, feature, computed[view].features)
                self._computed[computed[view]] = self._computed.get(computed[view], []) + names
                stored += [need for need in computed[view].needs if need not in features]
            else:
                stored.append(name)
        names_by_view: dict[str, list[str]] = {}
        for name in dict.fromkeys(stored):
            view, _, feature = name.partition(":")
            names_by_view.setdefault(view, []).extend(_select_features(view, feature, view_of(view).features))
        self._parts = [self._select_from_view(view_of(view), names) for view, names in names_by_view.items()]
        self._empty: Features = {name: None for part in self._parts for name in part.names}
        if len(self._empty) < sum(len(part.names) for part in self._parts):
            raise TableError(f"two views give a feature of the same name: {', '.join(features)}")

    @staticmethod
    def _select_from_view(view: View, names: Sequence[str]) -> _ViewSelection:
        times = frozenset(name for name in names if view.features[name].kind == "timestamp")
        return _ViewSelection(view, tuple(dict.fromkeys(names)), times)

    def read(
        self, entities: Sequence[Mapping[str, object]], request: Mapping[str, object] | None = None
    ) -> list[Features]:
        """Returns the features of each entity.

        Raises TableError for an entity without the views' keys, or for a request without a value that an on-demand view
        needs.
        """
        rows = self._read_stored(entities)
        for view, names in self._computed.items():
            _add_computed(view, names, rows, request or {})
        return rows

    def _read_stored(self, entities: Sequence[Mapping[str, object]]) -> list[Features]:
        """Reads the stored features of each entity."""
        results = [dict(self._empty) for _ in entities]
        now = self._clock() * 1e6
        for part in self._parts:
            keys = [key_of(part.view, entity) for entity in entities]
            oldest = now - part.view.ttl.total_seconds() * 1e6
            for row, result in zip(self._store.read(part.view.name, keys), results, strict=True):
                if row is None or row.at < oldest:
                    continue
                stored = row.features
                for name in part.names:
                    result[name] = stored.get(name)
                for name in part.timestamps:
                    if result[name] is not None:
                        result[name] = datetime.fromtimestamp(result[name] / 1e6, UTC)
        return results


def _select_features(view: str, feature: str, columns: Mapping[str, Column]) -> list[str]:
    """Returns one feature, or all of the view where `feature` is empty. Raises TableError for an unknown feature."""
    if feature and feature not in columns:
        raise TableError(f"feature view {view!r} has no feature {feature!r}; known: {', '.join(columns)}")
    return [feature] if feature else list(columns)


def _add_computed(view: OnDemand, names: list[str], rows: list[Features], request: Mapping[str, object]) -> None:
    missing = [column.name for column in view.request if column.name not in request]
    if missing:
        raise TableError(f"on-demand view {view.name!r} needs of the request: {', '.join(missing)}")
    request_values = {column.name: request[column.name] for column in view.request}
    needs = [need.partition(":")[2] for need in view.needs]
    frame = pl.DataFrame(
        [{name: row[name] for name in needs} | request_values for row in rows], infer_schema_length=None
    )
    computed = view.compute(nw.from_native(frame)).to_native()
    for row, values in zip(rows, computed.select(names).iter_rows(named=True), strict=True):
        row.update(values)
