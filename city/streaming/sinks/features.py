"""Features from the stream itself: of the windows that a batch changes, or of its events, through the same transforms
as the tables."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache

import polars as pl

from city import local_time
from city.contracts.model import Contract, Window
from city.features.online import OnlineStore, online_store, push
from city.features.plan import Plan
from city.features.views import View, views
from city.lake.lakehouse import REFERENCE_NEIGHBOURS, neighbours
from city.lake.reference import read
from city.settings import Settings
from city.streaming.bronze import BronzeStream, scan
from city.streaming.records import Offsets, before
from city.streaming.sinks.base import Sink
from city.streaming.windows import Changed, compute
from city.tables import calendar
from city.tables.registry import table_of
from city.tables.schema import schema

log = logging.getLogger(__name__)

LOOK_BACK = 4  # windows before its own that a feature may be made from
_PUSHED = 4  # windows whose rows are pushed: the newest, and those that late events still change
_WINDOWS = LOOK_BACK + _PUSHED
_DAY = timedelta(days=1)
_TRIM_BATCHES = 50
_REREAD_SECONDS = 10.0  # what people edit counts from then on


def live_views(contract: Contract) -> list[View]:
    """The feature views that follow from the contract's windows alone, or from its events."""
    return [view for view in views().values() if view.windows(contract) or view.events(contract)]


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


def features(
    view: View, contract: Contract, state: State, timezone: str, country: str, plan: Plan | None = None
) -> pl.DataFrame:
    """The view's rows for the windows that are held."""
    frames = {
        name: state.held[window.name].with_columns(day=pl.lit(None)) for name, window in view.windows(contract).items()
    }
    times = [frame["window_start"] for frame in frames.values() if frame.height]
    if not times:
        return pl.DataFrame(schema=schema(view.table))
    inputs = dict(frames)
    for name, source in view.table.sources.items():
        if source.table == REFERENCE_NEIGHBOURS:
            inputs[name] = neighbours(frames[source.of]["cell"])
        elif name not in inputs:
            inputs[name] = _slots(pl.concat(times), timezone, country)
    return (plan or Plan(view.table)).run(inputs)


def _slots(times: pl.Series, timezone: str, country: str) -> pl.DataFrame:
    """The calendar of the local days from the first of some times to the last."""
    first, last = (local_time.local_day(edge, timezone) for edge in (times.min(), times.max()))  # type: ignore[arg-type]
    return _calendar(first, last, timezone, country)


@lru_cache(maxsize=8)
def _calendar(first: date, last: date, timezone: str, country: str) -> pl.DataFrame:
    return calendar.calendar([first + timedelta(days=n) for n in range((last - first).days + 1)], timezone, country)


class Events:
    """A view's rows for the events of a stream, from the last events of each key, which it holds."""

    def __init__(self, view: View, contract: Contract, config: Settings) -> None:
        assert view.table.look_back is not None
        self._view, self._contract, self._config = view, contract, config
        self._rows, self._source = view.table.look_back, view.events(contract)
        self._silver, self._plan = Plan(table_of(f"silver/{contract.name}")), Plan(view.table)
        self._references = {name: table_of(s.table) for name, s in view.table.sources.items() if name != self._source}
        self._read: dict[str, pl.DataFrame] = {}
        self._read_at = float("-inf")
        self._held: pl.DataFrame | None = None
        self._added = 0

    def hold(self, earlier: pl.DataFrame) -> None:
        """Forgets what it holds, for these bronze rows."""
        self._held, self._added = self._trimmed(earlier), 0

    def add(self, batch: pl.DataFrame, revised: bool = False) -> pl.DataFrame:
        """The view's rows of a batch of bronze rows, in order of time, in which a listener to their scores follows a
        key. An event that was sent before has none. With `revised` also the rows of events after one that came late,
        which it is part of."""
        at = [self._contract.key, self._contract.event_time]
        known = batch.head(0)
        if self._held is not None:
            known = self._trimmed(self._held.join(batch, on=at[0], how="semi"))
        batch = batch.join(known, on=at, how="anti", maintain_order="left")
        if batch.is_empty():
            return pl.DataFrame(schema=schema(self._view.table))
        rows = pl.concat([known, batch])
        found = self._plan.run({self._source or "": self._as_silver(rows), **self._as_kept()})
        self.keep(batch)
        if revised:
            first = batch.group_by(at[0]).agg(pl.col(at[1]).min().alias("_first"))
            of_key = found.join(first, left_on=self._view.entities, right_on=at[0], how="inner")
            found = of_key.filter(pl.col(self._view.time) >= pl.col("_first")).drop("_first")
        else:
            found = found.join(batch, left_on=[*self._view.entities, self._view.time], right_on=at, how="semi")
        return found.sort(self._view.time)  # a table's transform keeps no order

    def keep(self, batch: pl.DataFrame) -> None:
        """Holds a batch's rows too, and lets go of old ones now and then: to look at all that is held for each batch
        would cost more than the batch, and more with each hour."""
        self._held = batch if self._held is None else pl.concat([self._held, batch], rechunk=False)
        self._added += 1
        if self._added >= _TRIM_BATCHES:
            self._held, self._added = self._trimmed(self._held), 0

    def _trimmed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The last rows of each key, of a day at most: what a build of the table looks at."""
        key, at = self._contract.key, self._contract.event_time
        newest = rows[at].max()
        if newest is not None:
            rows = rows.filter(pl.col(at) > newest - _DAY)  # type: ignore[operator]
        return rows.sort(at).group_by(key, maintain_order=True).tail(self._rows).select(rows.columns)

    def _as_silver(self, rows: pl.DataFrame) -> pl.DataFrame:
        slots = _slots(rows[self._contract.event_time], self._config.timezone, self._config.country)
        return self._silver.run({self._contract.name: rows, "calendar": slots})

    def _as_kept(self) -> dict[str, pl.DataFrame]:
        if time.monotonic() > self._read_at + _REREAD_SECONDS:
            self._read = {name: read(self._config.lake, table) for name, table in self._references.items()}
            self._read_at = time.monotonic()
        return self._read


def earlier_events(contract: Contract, bronze: BronzeStream, below: Offsets, span: timedelta = _DAY) -> pl.DataFrame:
    """The bronze rows of the last `span` up to a position; a day is what live views of events begin with."""
    newest = max(bronze.watermarks.values(), default=0)
    since = pl.lit(newest).cast(pl.Datetime("us", "UTC")) - span
    return scan(bronze.path).filter((pl.col(contract.event_time) > since) & before(below)).collect()


class FeatureSink(Sink):
    """Pushes what a batch changed to the online store. What it repeats after a crash is written over itself."""

    name = "features"
    prompt = True

    def __init__(self, contract: Contract, config: Settings, bronze: BronzeStream) -> None:
        self._contract, self._config, self._bronze = contract, config, bronze
        views = live_views(contract)
        self._views = [view for view in views if view.windows(contract)]
        self._plans = {view.name: Plan(view.table) for view in self._views}
        self._events = [(view, Events(view, contract, config)) for view in views if view.events(contract)]
        named = {w.name: w for view in self._views for w in view.windows(contract).values()}
        self._state = State(named)
        self._pushed: dict[str, pl.DataFrame] = {}
        self._store: OnlineStore | None = None

    def open(self, recorded: Offsets) -> Offsets:
        self._store = online_store(self._config)
        # Only the newest values count: what is there already is read as it stands, not event by event.
        position = dict(self._bronze.position)
        for window in self._state.windows.values():
            self._state.held[window.name] = compute(
                self._contract,
                window,
                earlier_events(self._contract, self._bronze, position, _WINDOWS * window.every),
            )
        self._push()
        if self._events:
            earlier = earlier_events(self._contract, self._bronze, position)
            for _, events in self._events:
                events.hold(earlier)
        return position

    def apply(self, rows: pl.DataFrame, start: Offsets, changed: Changed) -> None:
        for name in self._state.windows:
            self._state.put(name, changed()[name])
        self._push()
        for view, events in self._events:
            assert self._store is not None
            push(self._store, view, events.add(rows, revised=True))

    def _push(self) -> None:
        assert self._store is not None
        for view in self._views:
            timezone, country = self._config.timezone, self._config.country
            found = features(view, self._contract, self._state, timezone, country, self._plans[view.name])
            every = max(window.every for window in view.windows(self._contract).values())
            found = found.filter(pl.col("window_start") > pl.col("window_start").max() - _PUSHED * every)
            known = self._pushed.get(view.name)
            fresh = found if known is None else found.join(known, on=found.columns, how="anti", nulls_equal=True)
            push(self._store, view, fresh)
            self._pushed[view.name] = found

    def close(self) -> None:
        self._store = None


def feature_sink(contract: Contract, config: Settings, bronze: BronzeStream) -> Sink | None:
    """None for a contract that no feature view follows from."""
    return FeatureSink(contract, config, bronze) if live_views(contract) else None
