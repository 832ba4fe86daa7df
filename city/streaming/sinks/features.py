"""Computes features from the stream itself: from the windows that a batch changes, or from its events.

The transforms are the same as those of the tables.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl

from city.contracts.model import Contract, Window
from city.features.events import LONGEST, EventRows, calendar_between
from city.features.online import OnlineStore, online_store, push
from city.features.plan import Plan
from city.features.views import View, views
from city.settings import Settings
from city.stack.history_progress import is_recent_missing
from city.streaming.bronze import BronzeStream, scan
from city.streaming.records import Offsets, below_position
from city.streaming.sinks.base import Sink
from city.streaming.sinks.context import Context
from city.streaming.sinks.stored import StoredSources
from city.streaming.windows import Changed, compute
from city.tables.calendar import REFERENCE_CALENDAR
from city.tables.cell_sources import CELL_SOURCES
from city.tables.schema import schema

log = logging.getLogger(__name__)

LOOK_BACK = 11  # earlier windows that a feature of a window may use
_PUSHED = 4  # windows whose rows are pushed: the newest one, and those that late events still change
_WINDOWS = LOOK_BACK + _PUSHED
_TRIM_BATCHES = 50
_PUSH_ALL_SECONDS = 30.0
"""All windows are pushed after this time, because the reference and settled tables that they use may have changed."""


def live_views(contract: Contract) -> list[View]:
    """Returns the feature views that follow from the contract's windows alone, or from its events."""
    return [view for view in views().values() if view.windows(contract) or view.events(contract)]


@dataclass
class State:
    """Holds the newest windows of a contract, by window name."""

    windows: Mapping[str, Window]
    frames: dict[str, pl.DataFrame] = field(default_factory=dict)

    def put(self, name: str, changed: pl.DataFrame) -> None:
        """Replaces the windows that a batch has changed, and drops old ones."""
        window, frame = self.windows[name], self.frames.get(name)
        keys = ["window_start", window.by]
        rows = changed if frame is None else pl.concat([frame.join(changed, on=keys, how="anti"), changed])
        if rows.height:
            newest = rows["window_start"].max()
            assert isinstance(newest, datetime)
            rows = rows.filter(pl.col("window_start") > newest - _WINDOWS * window.every)
        self.frames[name] = rows


def features(
    view: View,
    contract: Contract,
    state: State,
    timezone: str,
    country: str,
    plan: Plan | None = None,
    stored: Mapping[str, pl.DataFrame] | None = None,
    since: datetime | None = None,
) -> pl.DataFrame:
    """Computes the view's rows for the newest windows in `state`: those that late events may still change.

    `stored` has the frames of the view's context, settled and reference sources, by source. With `since`, the windows
    that began earlier have no rows.
    """
    frames = {
        name: state.frames[window.name].with_columns(day=pl.lit(None))
        for name, window in view.windows(contract).items()
    }
    times = pl.concat([frame["window_start"] for frame in frames.values()])
    newest = times.max()
    if newest is None:
        return pl.DataFrame(schema=schema(view.table))
    assert isinstance(newest, datetime)
    every = max(window.every for window in view.windows(contract).values())
    first = newest - (_PUSHED - 1) * every
    first = first if since is None else max(first, since)
    inputs = {**frames, **(stored or {})}
    for name, source in view.table.sources.items():
        if name in inputs:
            continue
        if source.table in CELL_SOURCES:
            inputs[name] = CELL_SOURCES[source.table](frames[source.cell_source]["cell"])
        elif source.table == REFERENCE_CALENDAR:
            # Windows that are not in the calendar are used for look-back only.
            inputs[name] = calendar_between(first, newest, timezone, country)
    return (plan or Plan(view.table)).run(inputs, ("window_start", first))


class Events:
    """Computes a view's rows for the events of a stream, from the last events of each key, which it keeps in memory."""

    def __init__(self, view: View, contract: Contract, config: Settings) -> None:
        assert view.table.look_back is not None
        self._view, self._contract = view, contract
        self._rows, self._computed = view.table.look_back, EventRows(view, contract, config)
        self._earlier: pl.DataFrame | None = None
        self._added = 0

    def hold(self, earlier: pl.DataFrame) -> None:
        """Replaces the events in memory by these bronze rows."""
        self._earlier, self._added = self._trim(earlier), 0

    def add(self, batch: pl.DataFrame, revised: bool = False) -> pl.DataFrame:
        """Adds a batch of bronze rows and returns the view's rows of its events, in order of time.

        A listener to the scores of these rows follows a key in that order. An event that was added before has no row.
        With `revised` the result also has the rows of the events after a late one, because it is an input to them.
        """
        at = [self._contract.key, self._contract.event_time]
        earlier = batch.head(0)
        if self._earlier is not None:
            earlier = self._trim(self._earlier.join(batch, on=at[0], how="semi"))
        batch = batch.join(earlier, on=at, how="anti", maintain_order="left")
        if batch.is_empty():
            return pl.DataFrame(schema=schema(self._view.table))
        events = pl.concat([earlier, batch])
        rows = self._computed.compute(events)
        self.keep(batch)
        if revised:
            first = batch.group_by(at[0]).agg(pl.col(at[1]).min().alias("_first"))
            joined = rows.join(first, left_on=self._view.entities, right_on=at[0], how="inner")
            rows = joined.filter(pl.col(self._view.time) >= pl.col("_first")).drop("_first")
        else:
            rows = rows.join(batch, left_on=[*self._view.entities, self._view.time], right_on=at, how="semi")
        return rows.sort(self._view.time)  # a table's transform does not keep the order

    def keep(self, batch: pl.DataFrame) -> None:
        """Adds a batch's rows to the events in memory, and drops old ones every few batches.

        To trim the events at each batch costs more than the batch itself, and more with each hour.
        """
        self._earlier = batch if self._earlier is None else pl.concat([self._earlier, batch], rechunk=False)
        self._added += 1
        if self._added >= _TRIM_BATCHES:
            self._earlier, self._added = self._trim(self._earlier), 0

    def _trim(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Returns the last rows of each key, of at most a day. A build of the table uses the same rows."""
        key, at = self._contract.key, self._contract.event_time
        newest = rows[at].max()
        if newest is not None:
            rows = rows.filter(pl.col(at) > newest - LONGEST)  # type: ignore[operator]
        return rows.sort(at).group_by(key, maintain_order=True).tail(self._rows).select(rows.columns)


def earlier_events(contract: Contract, bronze: BronzeStream, below: Offsets, span: timedelta = LONGEST) -> pl.DataFrame:
    """Reads the bronze rows of the last `span` up to a position. Live views of events start with one day."""
    # Without a watermark no message has come yet, and the rows of bronze are the history of a new city.
    newest = max(bronze.watermarks.values(), default=int(time.time() * 1e6))
    since = pl.lit(newest).cast(pl.Datetime("us", "UTC")) - span
    return scan(bronze.path).filter((pl.col(contract.event_time) > since) & below_position(below)).collect()


class FeatureSink(Sink):
    """Pushes the feature rows that a batch changed to the online store.

    Rows that come again after a crash overwrite themselves.
    """

    name = "features"
    prompt = True

    def __init__(self, contract: Contract, config: Settings, bronze: BronzeStream) -> None:
        self._contract, self._config, self._bronze = contract, config, bronze
        views = live_views(contract)
        self._views = [view for view in views if view.windows(contract)]
        self._plans = {view.name: Plan(view.table) for view in self._views}
        self._context = {view.name: Context(view, config.lake) for view in self._views}
        self._stored = {view.name: StoredSources(view, config) for view in self._views}
        self._events = [(view, Events(view, contract, config)) for view in views if view.events(contract)]
        named = {w.name: w for view in self._views for w in view.windows(contract).values()}
        self._state = State(named)
        self._pushed_all_at = float("-inf")
        self._lacks_history = False
        self._store: OnlineStore | None = None

    def open(self, recorded: Offsets) -> Offsets:
        """Connects to the online store and pushes the current rows. Returns bronze's position."""
        self._store = online_store(self._config)
        # Only the newest values count, so the sink reads the current windows from bronze, not each event.
        position = dict(self._bronze.position)
        self._lacks_history = is_recent_missing(self._config)
        self._load_windows(position)
        self._push_windows(None)
        if self._events:
            earlier = earlier_events(self._contract, self._bronze, position)
            for _, events in self._events:
                events.hold(earlier)
        return position

    def _load_windows(self, below: Offsets) -> None:
        """Reads the current windows from bronze up to a position."""
        for window in self._state.windows.values():
            earlier = earlier_events(self._contract, self._bronze, below, _WINDOWS * window.every)
            self._state.frames[window.name] = compute(self._contract, window, earlier)

    def apply(self, rows: pl.DataFrame, start: Offsets, changed: Changed) -> None:
        """Pushes the rows of the changed windows and of the batch's events."""
        if self._lacks_history and not is_recent_missing(self._config):
            # The newest part of a history came after the stream had begun: the windows look back at it.
            self._lacks_history = False
            self._load_windows(self._bronze.position)
            self._pushed_all_at = float("-inf")
        starts: list[datetime] = []
        for name in self._state.windows:
            frame = changed()[name]
            self._state.put(name, frame)
            starts += frame["window_start"].unique().to_list()
        # What the windows are joined with may change too: then all are pushed, a while later.
        is_due = time.monotonic() >= self._pushed_all_at + _PUSH_ALL_SECONDS
        if starts or is_due:
            self._push_windows(None if is_due else min(starts))
        for view, events in self._events:
            assert self._store is not None
            push(self._store, view, events.add(rows, revised=True))

    def _push_windows(self, since: datetime | None) -> None:
        """Pushes the rows of the windows that began at `since` or later, because they may depend on that one."""
        assert self._store is not None
        if since is None:
            self._pushed_all_at = time.monotonic()
        for view in self._views:
            timezone, country = self._config.timezone, self._config.country
            now = datetime.now(UTC)
            stored = self._context[view.name].frames(now) | self._stored[view.name].frames(self._newest(view) or now)
            plan = self._plans[view.name]
            push(self._store, view, features(view, self._contract, self._state, timezone, country, plan, stored, since))

    def _newest(self, view: View) -> datetime | None:
        """Returns the beginning of the view's newest window."""
        frames = [self._state.frames[window.name] for window in view.windows(self._contract).values()]
        newest = pl.concat([frame.select("window_start") for frame in frames])["window_start"].max()
        assert newest is None or isinstance(newest, datetime)
        return newest

    def close(self) -> None:
        """Drops the connection to the online store."""
        self._store = None


def feature_sink(contract: Contract, config: Settings, bronze: BronzeStream) -> Sink | None:
    """Creates the contract's feature sink. Returns None for a contract that no feature view follows from."""
    return FeatureSink(contract, config, bronze) if live_views(contract) else None
