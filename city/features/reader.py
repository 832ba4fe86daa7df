"""Online features as serving reads them: views resolved once, entities in bulk."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from city.features.online import OnlineStore
from city.features.views import View, key_of, view_of
from city.tables.model import TableError


@dataclass(frozen=True)
class _Part:
    view: View
    names: tuple[str, ...]
    timestamps: frozenset[str]


class FeatureReader:
    """Reads a fixed list of features, named `view:feature` (or `view` for all of it).

    Raises TableError for an unknown view or feature. `read` gives, for each entity, a dictionary by feature name; a
    feature is None where the entity is unknown, or where its row is older than the view's time to live.
    """

    def __init__(self, store: OnlineStore, features: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        wanted: dict[str, list[str]] = {}
        for name in features:
            view, _, feature = name.partition(":")
            known = view_of(view).features
            if feature and feature not in known:
                raise TableError(f"feature view {view!r} has no feature {feature!r}; known: {', '.join(known)}")
            wanted.setdefault(view, []).extend([feature] if feature else list(known))
        self._parts = [self._part(view_of(view), names) for view, names in wanted.items()]
        self._empty: dict[str, Any] = {name: None for part in self._parts for name in part.names}
        if len(self._empty) < sum(len(part.names) for part in self._parts):
            raise TableError(f"two views give a feature of the same name: {', '.join(features)}")

    @staticmethod
    def _part(view: View, names: Sequence[str]) -> _Part:
        times = frozenset(name for name in names if view.features[name].kind == "timestamp")
        return _Part(view, tuple(dict.fromkeys(names)), times)

    def read(self, entities: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
        """The features of each entity. Raises TableError for an entity without the views' keys."""
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
