"""Computes event-time tumbling windows over a stream of bronze rows.

A window stores mergeable moments (the number of events and, for each measured column, the number of its values, their
sum and their sum of squares) for each `by` and, where it counts distinct values, for each of those values. The lateness
of a row follows from the row's own `_watermark`. So the content of a window does not depend on batch boundaries or on
restarts, and is the same in a stream and in a batch computation.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime

import polars as pl

from city.contracts.model import Contract, Count, Distinct, Mean, Std, Window
from city.streaming.records import Batch, Offsets

Earlier = Callable[[datetime, datetime, Offsets], pl.DataFrame]
"""Reads the bronze rows with event time in [from, to) and below the given offsets."""


class WindowOperator:
    """Maintains the open windows of one declaration.

    A window that is not in memory is read from bronze when a batch changes it.
    """

    def __init__(self, contract: Contract, window: Window, earlier: Earlier, newest: datetime | None) -> None:
        """`newest` is the newest event time in bronze so far. No window after it can have earlier rows."""
        self.contract, self.window = contract, window
        self.late = self.too_late = 0
        self._earlier = earlier
        self._newest = newest
        self._open: dict[datetime, pl.DataFrame] = {}

    def add(self, rows: pl.DataFrame, start: Offsets) -> pl.DataFrame:
        """Adds a batch that begins at `start`. Returns the windows that it changed, in the form of `results`."""
        if rows.is_empty():
            return results(self.window, pl.DataFrame(schema=self._moments_schema(rows)))
        events = assign(self.contract, self.window, rows)
        late = events["_watermark"] >= events["window_start"] + self.window.every
        timely = events.filter(~_is_too_late(self.window))
        self.too_late += events.height - timely.height
        self.late += int(late.sum()) - (events.height - timely.height)
        changed = []
        for (window_start,), part in moments(self.window, timely).partition_by("window_start", as_dict=True).items():
            earlier = self._load_window(window_start, start)
            merged = merge(self.window, [earlier, part]) if earlier is not None else part
            self._open[window_start] = merged
            changed.append(merged.join(part, on=self.window.by, how="semi"))
        newest = rows["_watermark"].max()
        assert isinstance(newest, datetime)
        self._newest = max(newest, self._newest or newest)
        self._evict_windows()
        return results(self.window, pl.concat(changed) if changed else moments(self.window, timely))

    def current(self, rows: pl.DataFrame, below: Offsets) -> pl.DataFrame:
        """Returns the windows that contain some rows, as of bronze's rows below the offsets. Changes nothing."""
        parts = []
        touched = assign(self.contract, self.window, rows).filter(~_is_too_late(self.window))
        for (window_start,), part in touched.partition_by("window_start", as_dict=True).items():
            assert isinstance(window_start, datetime)
            earlier = self._earlier(window_start, window_start + self.window.every, below)
            sums = moments(self.window, assign(self.contract, self.window, earlier).filter(~_is_too_late(self.window)))
            parts.append(sums.join(part, on=self.window.by, how="semi"))
        return results(self.window, pl.concat(parts) if parts else moments(self.window, touched))

    def forget(self, newest: datetime | None) -> None:
        """Drops the open windows. Each is read from bronze when a batch changes it again."""
        self._open = {}
        if newest is not None:
            self._newest = max(newest, self._newest or newest)

    def _load_window(self, window_start: datetime, start: Offsets) -> pl.DataFrame | None:
        """Returns a window's moments from memory or from bronze below `start`; None for a window without rows."""
        if window_start in self._open:
            return self._open[window_start]
        if self._newest is None or window_start > self._newest:
            return None
        rows = self._earlier(window_start, window_start + self.window.every, start)
        return moments(self.window, assign(self.contract, self.window, rows).filter(~_is_too_late(self.window)))

    def _evict_windows(self) -> None:
        assert self._newest is not None
        horizon = self._newest - self.window.lateness - 2 * self.window.every
        self._open = {start: sums for start, sums in self._open.items() if start >= horizon}

    def _moments_schema(self, rows: pl.DataFrame) -> pl.Schema:
        return moments(self.window, assign(self.contract, self.window, rows)).schema


Changed = Callable[[], Mapping[str, pl.DataFrame]]
"""Returns the windows that a batch has changed, by name. Computes them at the first call."""

_REMEMBERED = 8  # batches whose windows are cached for the sinks that are slightly behind


class ContractWindows:
    """Computes all windows of a contract over its stream, once for each batch, for whichever sink asks first.

    The content of a window after a batch is a function of the rows up to that batch, so sinks at the same batch can
    share it. After a batch that does not follow the last one, the windows are read from bronze again. Safe to call from
    any thread.
    """

    def __init__(
        self, contract: Contract, earlier: Earlier, newest: Callable[[], datetime | None], reached: Offsets
    ) -> None:
        """`newest` returns the newest event time in bronze. The first batch is expected to begin at `reached`."""
        self._earlier, self._newest, self._reached = earlier, newest, dict(reached)
        self.operators = [WindowOperator(contract, window, earlier, newest()) for window in contract.windows]
        self._lock = threading.Lock()
        self._cache: OrderedDict[object, dict[str, pl.DataFrame]] = OrderedDict()

    @property
    def late(self) -> int:
        """The number of events that came after their window's end, and changed it."""
        return sum(operator.late for operator in self.operators)

    @property
    def too_late(self) -> int:
        """The number of events that came later than the allowed lateness, and changed nothing."""
        return sum(operator.too_late for operator in self.operators)

    def changed(self, batch: Batch) -> Mapping[str, pl.DataFrame]:
        """Returns the windows that the batch changed, by name, in the form of `results`."""
        if not self.operators:
            return {}
        key = (*sorted(batch.start.items()), None, *sorted(batch.end.items()))
        with self._lock:
            if key in self._cache:
                return self._cache[key]
            if any(first < self._reached.get(p, 0) for p, first in batch.start.items()):
                return {o.window.name: o.current(batch.rows, self._reached) for o in self.operators}
            if any(first > self._reached.get(p, 0) for p, first in batch.start.items()):
                self._drop_windows()
            # A batch names only the partitions that it has messages of. A window has rows of all partitions.
            start = self._reached | batch.start
            try:
                windows = {o.window.name: o.add(batch.rows, start) for o in self.operators}
            except BaseException:
                self._drop_windows()  # some operators have added the batch, and others have not
                raise
            self._reached = self._reached | batch.end
            self._cache[key] = windows
            if len(self._cache) > _REMEMBERED:
                self._cache.popitem(last=False)
            return windows

    def _drop_windows(self) -> None:
        newest = self._newest()
        for operator in self.operators:
            operator.forget(newest)


def compute(contract: Contract, window: Window, rows: pl.DataFrame) -> pl.DataFrame:
    """Computes the windows of a whole table of bronze rows.

    The operator returns the same windows for the same rows in any batches.
    """
    events = assign(contract, window, rows).filter(~_is_too_late(window))
    return results(window, moments(window, events)).sort("window_start", window.by)


def assign(contract: Contract, window: Window, rows: pl.DataFrame) -> pl.DataFrame:
    """Selects the rows that match the window's filter, and adds their `window_start`."""
    selected = rows if window.where == "true" else rows.filter(pl.sql_expr(window.where))
    return selected.with_columns(window_start=pl.col(contract.event_time).dt.truncate(window.every))


def moments(window: Window, events: pl.DataFrame) -> pl.DataFrame:
    """Computes the counts, sums and sums of squares for each window, `by` and distinct value. A null is no value."""
    keys = _group_keys(window)
    return events.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("_n"),
        *(pl.col(name).count().cast(pl.Int64).alias(f"_values_{name}") for name in window.counted_columns),
        *(pl.col(name).sum().alias(f"_sum_{name}") for name in window.measured_columns),
        *((pl.col(name) ** 2).sum().alias(f"_squares_{name}") for name in window.measured_columns),
    )


def merge(window: Window, parts: list[pl.DataFrame]) -> pl.DataFrame:
    """Adds the moments of several parts of the window's rows."""
    return pl.concat(parts).group_by(_group_keys(window)).agg(pl.all().sum())


def results(window: Window, sums: pl.DataFrame) -> pl.DataFrame:
    """Computes the declared aggregates from moments: one row for each window and `by`.

    Raises TypeError for an aggregate of an unknown type.
    """
    columns = []
    for aggregate in window.aggregates:
        values = pl.col(f"_values_{aggregate.source_column}").sum()
        mean = pl.when(values > 0).then(pl.col(f"_sum_{aggregate.source_column}").sum() / values)
        if isinstance(aggregate, Count):
            column = values if aggregate.source_column else pl.col("_n").sum()
        elif isinstance(aggregate, Distinct):
            column = pl.len().cast(pl.Int64)
        elif isinstance(aggregate, Mean):
            column = mean
        elif isinstance(aggregate, Std):
            squares = pl.col(f"_squares_{aggregate.source_column}").sum() - values * mean**2
            column = pl.when(values > 1).then((squares.clip(lower_bound=0) / (values - 1)).sqrt())
        else:
            raise TypeError(f"window {window.name!r}: no rule for an aggregate of type {type(aggregate).__name__}")
        columns.append(column.alias(aggregate.name))
    return sums.group_by("window_start", window.by).agg(columns)


def _group_keys(window: Window) -> list[str]:
    return ["window_start", window.by, *([window.distinct_column] if window.distinct_column else [])]


def _is_too_late(window: Window) -> pl.Expr:
    return pl.col("_watermark") >= pl.col("window_start") + window.every + window.lateness
