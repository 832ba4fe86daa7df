"""Checks whether online features are as new as they must be while events of their sources arrive."""

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

_EVENT_BOUND = timedelta(minutes=10)
_MAX_WAIT = timedelta(hours=1)


def freshness_bound(view: View, sources: list[Contract]) -> timedelta:
    """Returns how old the newest row of a view may be while events arrive.

    The bound is two windows and their lateness where the stream computes the view from windows. It is ten minutes where
    the view has a row for each event. It is half the view's time to live where only builds write it: its values are
    then served for as long again.
    """
    for contract in sources:
        if windows := view.windows(contract).values():
            return max(2 * window.every + window.lateness for window in windows)
        if view.events(contract):
            return _EVENT_BOUND
    return view.ttl / 2


@dataclass
class _ViewState:
    """The state of a view: the topics that it is made from, and when its events and rows arrived."""

    topics: frozenset[str]
    bound: float
    """In seconds; see `freshness_bound`."""
    newest: int | None = None
    """The newest time in the online store, in microseconds."""
    waiting_since: float | None = None
    """When the first event arrived that no row has followed yet, after the last pause longer than the bound."""
    event_at: float | None = None
    """When the last event arrived."""


class FeatureFreshness:
    """Compares the online store with the stream's report. Call `metrics` every few seconds.

    A view is stale where its newest row is older than its bound although events of its source arrived all the time.
    That is: the first of these events arrived at least the bound (an hour at most) ago, no row has followed any of
    them, and the last arrived within the bound. Where no events arrive, or have only begun to arrive again, it is not
    known whether an old view is stale.
    """

    def __init__(self, config: Settings, store: OnlineStore | None = None) -> None:
        self._config, self._store = config, store
        all_tables = tables()
        self._views: dict[str, _ViewState] = {}
        for name, view in views().items():
            upstream = in_order(all_tables, [view.table.id])
            made_from = {source.table for table in upstream for source in all_tables[table].sources.values()}
            sources = [c for c in contracts() if c.rate == "high" and f"bronze/{c.name}" in made_from]
            if sources:
                bound = freshness_bound(view, sources).total_seconds()
                self._views[name] = _ViewState(frozenset(contract.topic for contract in sources), bound)
        self._rows: dict[str, int] = {}
        self._failed = False

    def ages(self, now: float | None = None) -> dict[str, float]:
        """Returns the seconds since the newest time in the online store, for each view that was ever written.

        Returns no ages where the store is not reachable.
        """
        moment = time.time() if now is None else now
        newest = self._read_newest() or {}
        return {name: max(0.0, moment - at / 1e6) for name, at in newest.items() if name in self._views}

    def metrics(self, now: float | None = None) -> dict[str, float | None]:
        """Returns the metrics of each view.

        They are `model.feature_age_s.<view>`, in seconds, and `model.features_stale.<view>`: 1 where the view is stale,
        0 where it is fresh, None where that is not known.
        """
        moment = time.time() if now is None else now
        newest, active_topics = self._read_newest(), self._topics_with_new_rows()
        values: dict[str, float | None] = {}
        for name, view in self._views.items():
            if newest is None:
                values |= {f"model.feature_age_s.{name}": None, f"model.features_stale.{name}": None}
                continue
            self._update_state(view, newest.get(name), bool(view.topics & active_topics), moment)
            if view.newest is not None:
                values[f"model.feature_age_s.{name}"] = max(0.0, moment - view.newest / 1e6)
            values[f"model.features_stale.{name}"] = _staleness(view, moment)
        return values

    @staticmethod
    def _update_state(view: _ViewState, newest: int | None, has_events: bool, now: float) -> None:
        """Updates the state of a view from its newest row and from whether events have arrived."""
        if newest != view.newest:
            view.newest, view.waiting_since = newest, None
        if has_events:
            paused = view.event_at is None or now - view.event_at > view.bound
            if view.waiting_since is None or paused:
                view.waiting_since = now
            view.event_at = now

    def _read_newest(self) -> Mapping[str, int] | None:
        """Reads the newest time of each view. Returns None, and logs it once, where the store is not reachable."""
        try:
            self._store = self._store or online_store(self._config)
            newest = self._store.newest()
        except Exception as error:  # a client may raise anything when its server is unavailable
            if not self._failed:
                log.warning("the newest times of the features cannot be read from the online store: %s", error)
            self._failed = True
            return None
        self._failed = False
        return newest

    def _topics_with_new_rows(self) -> set[str]:
        """Returns the topics with new rows in bronze since the last call; none at the first call."""
        report = read_json(self._config, STREAM)
        rows = {entry["topic"]: int(entry["rows"]) for entry in (report or {"streams": []})["streams"]}
        before, self._rows = self._rows, rows
        return {topic for topic, count in rows.items() if count > before.get(topic, count)}


def _staleness(view: _ViewState, now: float) -> float | None:
    """Returns 1 where the view is stale, 0 where it is fresh, None where that is not known."""
    if view.newest is not None and now - view.newest / 1e6 <= view.bound:
        return 0.0
    if view.waiting_since is None or view.event_at is None:
        return None
    wait = min(view.bound, _MAX_WAIT.total_seconds()) if view.newest is not None else view.bound
    is_stale = now - view.waiting_since >= wait and now - view.event_at <= view.bound
    return 1.0 if is_stale else None
