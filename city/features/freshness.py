"""Whether online features are as new as they must be while events of their sources arrive."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from city.contracts.model import Contract
from city.contracts.registry import contracts
from city.features.online import OnlineStore, online_store
from city.features.views import View, views
from city.settings import Settings
from city.stack.state import STREAM, read_json
from city.tables.registry import in_order, tables

log = logging.getLogger(__name__)

_OF_EVENTS = timedelta(minutes=10)
_MOST_PATIENCE = timedelta(hours=1)


def freshness_bound(view: View, sources: list[Contract]) -> timedelta:
    """How old the newest row of a view may be while events come: two of its windows and their lateness where the stream
    computes it from windows, ten minutes where it has a row for each event, and half its time to live where only builds
    write it: its values are then given out for as long again."""
    for contract in sources:
        if windows := view.windows(contract).values():
            return max(2 * window.every + window.lateness for window in windows)
        if view.events(contract):
            return _OF_EVENTS
    return view.ttl / 2


@dataclass
class _Watched:
    """A view, the topics that it is made from, and what was seen of them."""

    topics: frozenset[str]
    bound: float
    newest: int | None = None
    """The newest time in the online store, in microseconds."""
    waiting_since: float | None = None
    """When the first event came that no row has followed yet, after the last pause longer than the bound."""
    event_at: float | None = None
    """When the last event came."""


class FeatureFreshness:
    """Follows the online store beside what the stream reports. Give it a look every few seconds.

    A view is stale where its newest row is older than its bound although events of its source came all the while:
    the first of them so long ago (an hour at most) and none followed by a row, the last within the bound. Where no
    events come, or have only begun to come again, nothing is known of a view that is old.
    """

    def __init__(self, config: Settings, store: OnlineStore | None = None) -> None:
        self._config, self._store = config, store
        known = tables()
        self._views: dict[str, _Watched] = {}
        for name, view in views().items():
            before = in_order(known, [view.table.id])
            made_from = {source.table for table in before for source in known[table].sources.values()}
            of = [c for c in contracts() if c.rate == "high" and f"bronze/{c.name}" in made_from]
            if of:
                bound = freshness_bound(view, of).total_seconds()
                self._views[name] = _Watched(frozenset(contract.topic for contract in of), bound)
        self._rows: dict[str, int] = {}
        self._failed = False

    def ages(self, now: float | None = None) -> dict[str, float]:
        """Seconds since the newest time in the online store of each view that was ever written; none where the store
        is away."""
        moment = time.time() if now is None else now
        newest = self._newest() or {}
        return {name: max(0.0, moment - at / 1e6) for name, at in newest.items() if name in self._views}

    def metrics(self, now: float | None = None) -> dict[str, float | None]:
        """`model.feature_age_s.<view>`, and `model.features_stale.<view>`: 1 where it is stale, 0 where it is fresh,
        None where that is not known."""
        moment = time.time() if now is None else now
        newest, arrived = self._newest(), self._arrived()
        found: dict[str, float | None] = {}
        for name, view in self._views.items():
            if newest is None:
                found |= {f"model.feature_age_s.{name}": None, f"model.features_stale.{name}": None}
                continue
            self._follow(view, newest.get(name), bool(view.topics & arrived), moment)
            if view.newest is not None:
                found[f"model.feature_age_s.{name}"] = max(0.0, moment - view.newest / 1e6)
            found[f"model.features_stale.{name}"] = _stale(view, moment)
        return found

    @staticmethod
    def _follow(view: _Watched, newest: int | None, came: bool, now: float) -> None:
        if newest != view.newest:
            view.newest, view.waiting_since = newest, None
        if came:
            paused = view.event_at is None or now - view.event_at > view.bound
            if view.waiting_since is None or paused:
                view.waiting_since = now
            view.event_at = now

    def _newest(self) -> Mapping[str, int] | None:
        try:
            self._store = self._store or online_store(self._config)
            newest = self._store.newest()
        except Exception as error:  # whatever a client raises whose server is away
            if not self._failed:
                log.warning("the online store cannot be asked how new its features are: %s", error)
            self._failed = True
            return None
        self._failed = False
        return newest

    def _arrived(self) -> set[str]:
        """The topics of which rows have come to bronze since the last look; at the first look none."""
        report = read_json(self._config, STREAM)
        rows = {entry["topic"]: int(entry["rows"]) for entry in (report or {"streams": []})["streams"]}
        before, self._rows = self._rows, rows
        return {topic for topic, count in rows.items() if count > before.get(topic, count)}


def _stale(view: _Watched, now: float) -> float | None:
    if view.newest is not None and now - view.newest / 1e6 <= view.bound:
        return 0.0
    if view.waiting_since is None or view.event_at is None:
        return None
    patience = min(view.bound, _MOST_PATIENCE.total_seconds()) if view.newest is not None else view.bound
    lasts = now - view.waiting_since >= patience and now - view.event_at <= view.bound
    return 1.0 if lasts else None
