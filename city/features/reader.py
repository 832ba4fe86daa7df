"""Online features as serving reads them: views resolved once, entities in bulk."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import narwhals as nw
import polars as pl

from city.features.on_demand import OnDemand, on_demand
from city.features.online import OnlineStore
from city.features.views import View, key_of, view_of
from city.tables.model import Column, TableError


@dataclass(frozen=True)
class _Part:
    view: View
    names: tuple[str, ...]
    timestamps: frozenset[str]


def is_unknown(features: Mapping[str, Any]) -> bool:
    """Whether nothing is held of the entity that FeatureReader has read these of, or nothing fresh enough."""
    return all(value is None for value in features.values())


class FeatureReader:
    """Reads a fixed list of features, named `view:feature` (or `view` for all of it).

    An on-demand view is named like any other; `read` is then given what it needs of the request. Raises TableError for
    an unknown view or feature. `read` gives, for each entity, a dictionary by feature name; a
    feature is None where the entity is unknown, or where its row is older than the view's time to live.
    """

    def __init__(self, store: OnlineStore, features: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        computed = on_demand()
        self._computed: dict[OnDemand, list[str]] = {}
        stored: list[str] = []
        for name in features:
            view, _, feature = name.partition(":")
            if view in computed:
                names = _chosen(view, feature, computed[view].features)
                self._computed[computed[view]] = self._computed.get(computed[view], []) + names
                stored += [need for need in computed[view].needs if need not in features]
            else:
                stored.append(name)
        wanted: dict[str, list[str]] = {}
        for name in dict.fromkeys(stored):
            view, _, feature = name.partition(":")
            wanted.setdefault(view, []).extend(_chosen(view, feature, view_of(view).features))
        self._parts = [self._part(view_of(view), names) for view, names in wanted.items()]
        self._empty: dict[str, Any] = {name: None for part in self._parts for name in part.names}
        if len(self._empty) < sum(len(part.names) for part in self._parts):
            raise TableError(f"two views give a feature of the same name: {', '.join(features)}")

    @staticmethod
    def _part(view: View, names: Sequence[str]) -> _Part:
        times = frozenset(name for name in names if view.features[name].kind == "timestamp")
        return _Part(view, tuple(dict.fromkeys(names)), times)

    def read(
        self, entities: Sequence[Mapping[str, object]], request: Mapping[str, object] | None = None
    ) -> list[dict[str, Any]]:
        """The features of each entity. Raises TableError for an entity without the views' keys, or for a request
        without what an on-demand view needs."""
        found = self._stored(entities)
        for view, names in self._computed.items():
            _compute(view, names, found, request or {})
        return found

    def _stored(self, entities: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
        found = [dict(self._empty) for _ in entities]
        now = self._clock() * 1e6
        for part in self._parts:
            keys = [key_of(part.view, entity) for entity in entities]
            oldest = now - part.view.ttl.total_seconds() * 1e6
            for row, into in zip(self._store.read(part.view.name, keys), found, strict=True):
                if row is None or row.at < oldest:
                    continue
                held = row.features
                for name in part.names:
                    into[name] = held.get(name)
                for name in part.timestamps:
                    if into[name] is not None:
                        into[name] = datetime.fromtimestamp(into[name] / 1e6, UTC)
        return found


def _chosen(view: str, feature: str, known: Mapping[str, Column]) -> list[str]:
    if feature and feature not in known:
        raise TableError(f"feature view {view!r} has no feature {feature!r}; known: {', '.join(known)}")
    return [feature] if feature else list(known)


def _compute(view: OnDemand, names: list[str], rows: list[dict[str, Any]], request: Mapping[str, object]) -> None:
    missing = [column.name for column in view.request if column.name not in request]
    if missing:
        raise TableError(f"on-demand view {view.name!r} needs of the request: {', '.join(missing)}")
    given = {column.name: request[column.name] for column in view.request}
    needs = [need.partition(":")[2] for need in view.needs]
    frame = pl.DataFrame([{name: row[name] for name in needs} | given for row in rows], infer_schema_length=None)
    computed = view.compute(nw.from_native(frame)).to_native()
    for row, values in zip(rows, computed.select(names).iter_rows(named=True), strict=True):
        row.update(values)
