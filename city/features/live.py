"""Features from the stream itself: the windows that a batch changes, through the same transforms as the tables."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import narwhals as nw
import polars as pl

from city.contracts.model import Contract, Window
from city.engines.polars import PolarsEngine
from city.features.online import OnlineStore, online_store, push
from city.features.views import View, views
from city.lake.lakehouse import REFERENCE_NEIGHBOURS, neighbours
from city.settings import Settings
from city.streaming.bronze import BronzeStream, scan
from city.streaming.records import Offsets, before
from city.streaming.sink import Sink, window_operators
from city.streaming.windows import compute
from city.tables import calendar
from city.tables.schema import schema

log = logging.getLogger(__name__)

LOOK_BACK = 4  # windows before its own that a feature may be made from
_PUSHED = 4  # windows whose rows are pushed: the newest, and those that late events still change
_WINDOWS = LOOK_BACK + _PUSHED


def live_views(contract: Contract) -> list[View]:
    """The feature views that follow from the contract's windows alone."""
    return [view for view in views().values() if view.windows(contract)]


@dataclass
class State:
    """The newest windows of a contract, by window name."""

    windows: Mapping[str, Window]
    held: dict[str, pl.DataFrame] = field(default_factory=dict)

    def put(self, name: str, changed: pl.DataFrame) -> None:
        """Replaces the windows that a batch has changed, and lets go of old ones."""
        window, held = self.windows[name], self.held.get(name)
        keys = ["window_start", window.by]
        rows = changed if held is None else pl.concat([held.join(changed, on=keys, how="anti"), changed])
        if rows.height:
            newest = rows["window_start"].max()
            assert isinstance(newest, datetime)
            rows = rows.filter(pl.col("window_start") > newest - _WINDOWS * window.every)
        self.held[name] = rows


def features(view: View, contract: Contract, state: State, timezone: str, country: str) -> pl.DataFrame:
    """The view's rows for the windows that are held."""
    engine = PolarsEngine()
    frames = {
        name: state.held[window.name].with_columns(day=pl.lit(None)) for name, window in view.windows(contract).items()
    }
    times = [frame["window_start"] for frame in frames.values() if frame.height]
    if not times:
        return pl.DataFrame(schema=schema(view.table))
    ends = [t for time in times for t in (time.min(), time.max())]
    first, last = (calendar.local_day(edge, timezone) for edge in (min(ends), max(ends)))  # type: ignore[type-var, arg-type]
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    inputs = {name: engine.local(frame) for name, frame in frames.items()}
    for name, source in view.table.sources.items():
        if source.table == REFERENCE_NEIGHBOURS:
            inputs[name] = engine.local(neighbours(frames[source.of]["cell"]))
        elif name not in inputs:
            inputs[name] = engine.local(calendar.calendar(days, timezone, country))
    assert view.table.transform is not None
    rows = view.table.transform(**inputs)
    return engine.collect(rows.select(nw.col(name) for name in schema(view.table)))


class FeatureSink(Sink):
    """Pushes what a batch changed to the online store. What it repeats after a crash is written over itself."""

    name = "features"

    def __init__(self, contract: Contract, config: Settings, bronze: BronzeStream) -> None:
        self._contract, self._config, self._bronze = contract, config, bronze
        self._views = live_views(contract)
        named = {w.name: w for view in self._views for w in view.windows(contract).values()}
        self._state = State(named)
        self._pushed: dict[str, pl.DataFrame] = {}
        self._store: OnlineStore | None = None

    def open(self, recorded: Offsets) -> Offsets:
        self._store = online_store(self._config)
        self.operators = tuple(
            operator
            for operator in window_operators(self._contract, self._bronze)
            if operator.window.name in self._state.windows
        )
        # Only the newest values count: what is there already is read as it stands, not event by event.
        position = dict(self._bronze.position)
        for window in self._state.windows.values():
            self._state.held[window.name] = compute(self._contract, window, self._recent(window, position))
        self._push()
        return position

    def apply(self, rows: pl.DataFrame, start: Offsets) -> None:
        for operator in self.operators:
            self._state.put(operator.window.name, operator.add(rows, start))
        self._push()

    def _push(self) -> None:
        assert self._store is not None
        for view in self._views:
            found = features(view, self._contract, self._state, self._config.timezone, self._config.country)
            every = max(window.every for window in view.windows(self._contract).values())
            found = found.filter(pl.col("window_start") > pl.col("window_start").max() - _PUSHED * every)
            known = self._pushed.get(view.name)
            fresh = found if known is None else found.join(known, on=found.columns, how="anti", nulls_equal=True)
            push(self._store, view, fresh)
            self._pushed[view.name] = found

    def close(self) -> None:
        self._store = None

    def _recent(self, window: Window, below: Offsets) -> pl.DataFrame:
        """Bronze rows of the windows that are held, up to the sink's position."""
        newest = max(self._bronze.watermarks.values(), default=0)
        since = pl.lit(newest).cast(pl.Datetime("us", "UTC")) - _WINDOWS * window.every
        return scan(self._bronze.path).filter((pl.col(self._contract.event_time) > since) & before(below)).collect()


def feature_sink(contract: Contract, config: Settings, bronze: BronzeStream) -> Sink | None:
    """None for a contract that no feature view follows from."""
    return FeatureSink(contract, config, bronze) if live_views(contract) else None
