"""Event-time tumbling windows over a stream of bronze rows.

A window keeps mergeable moments (count, sum, sum of squares) for each `by` and, where something distinct is counted,
for each of its values. Lateness is judged a row at a time from the row's own `_watermark`, so what a window holds
does not depend on where batches were cut, on a restart, or on whether it is a stream at all.
"""

from collections.abc import Callable
from datetime import datetime

import polars as pl

from city.contracts.model import Contract, Count, Distinct, Mean, Std, Window
from city.streaming.records import Offsets

Earlier = Callable[[datetime, datetime, Offsets], pl.DataFrame]
"""Bronze rows with event time in [from, to) and below the given offsets."""


class WindowOperator:
    """The open windows of one declaration. A window that is not in memory is read from bronze when it is touched."""

    def __init__(self, contract: Contract, window: Window, earlier: Earlier, newest: datetime | None) -> None:
        """`newest` is the newest event time in bronze so far: no window after it can have earlier rows."""
        self.contract, self.window = contract, window
        self.late = self.too_late = 0
        self._earlier = earlier
        self._newest = newest
        self._open: dict[datetime, pl.DataFrame] = {}

    def add(self, rows: pl.DataFrame, start: Offsets) -> pl.DataFrame:
        """Adds a batch that begins at `start`; returns the windows it changed, as `results` has them."""
        if rows.is_empty():
            return results(self.window, pl.DataFrame(schema=self._moments_schema(rows)))
        events = assign(self.contract, self.window, rows)
        late = events["_watermark"] >= events["window_start"] + self.window.every
        timely = events.filter(~_too_late(self.window))
        self.too_late += events.height - timely.height
        self.late += int(late.sum()) - (events.height - timely.height)
        changed = []
        for (window_start,), part in moments(self.window, timely).partition_by("window_start", as_dict=True).items():
            held = self._held(window_start, start)
            merged = merge(self.window, [held, part]) if held is not None else part
            self._open[window_start] = merged
            changed.append(merged.join(part, on=self.window.by, how="semi"))
        newest = rows["_watermark"].max()
        assert isinstance(newest, datetime)
        self._newest = max(newest, self._newest or newest)
        self._evict()
        return results(self.window, pl.concat(changed) if changed else moments(self.window, timely))

    def _held(self, window_start: datetime, start: Offsets) -> pl.DataFrame | None:
        if window_start in self._open:
            return self._open[window_start]
        if self._newest is None or window_start > self._newest:
            return None
        rows = self._earlier(window_start, window_start + self.window.every, start)
        return moments(self.window, assign(self.contract, self.window, rows).filter(~_too_late(self.window)))

    def _evict(self) -> None:
        assert self._newest is not None
        horizon = self._newest - self.window.lateness - 2 * self.window.every
        self._open = {start: held for start, held in self._open.items() if start >= horizon}

    def _moments_schema(self, rows: pl.DataFrame) -> pl.Schema:
        return moments(self.window, assign(self.contract, self.window, rows)).schema


def compute(contract: Contract, window: Window, rows: pl.DataFrame) -> pl.DataFrame:
    """The windows of a whole table of bronze rows: what the operator gives for the same rows in any batches."""
    events = assign(contract, window, rows).filter(~_too_late(window))
    return results(window, moments(window, events)).sort("window_start", window.by)


def assign(contract: Contract, window: Window, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that the window is about, with their `window_start`."""
    found = rows if window.where == "true" else rows.filter(pl.sql_expr(window.where))
    return found.with_columns(window_start=pl.col(contract.event_time).dt.truncate(window.every))


def moments(window: Window, events: pl.DataFrame) -> pl.DataFrame:
    """Count, sums and sums of squares, for each window, `by` and distinct value."""
    keys = _keys(window)
    return events.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("_n"),
        *(pl.col(name).sum().alias(f"_sum_{name}") for name in window.measured),
        *((pl.col(name) ** 2).sum().alias(f"_squares_{name}") for name in window.measured),
    )


def merge(window: Window, parts: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(parts).group_by(_keys(window)).agg(pl.all().sum())


def results(window: Window, held: pl.DataFrame) -> pl.DataFrame:
    """One row a window and `by`: the declared aggregates."""
    total = pl.col("_n").sum()
    columns = []
    for aggregate in window.aggregates:
        mean = pl.col(f"_sum_{aggregate.of}").sum() / total
        if isinstance(aggregate, Count):
            column = total
        elif isinstance(aggregate, Distinct):
            column = pl.len().cast(pl.Int64)
        elif isinstance(aggregate, Mean):
            column = mean
        elif isinstance(aggregate, Std):
            squares = pl.col(f"_squares_{aggregate.of}").sum() - total * mean**2
            column = pl.when(total > 1).then((squares.clip(lower_bound=0) / (total - 1)).sqrt())
        else:
            raise TypeError(f"window {window.name!r}: no rule for an aggregate of type {type(aggregate).__name__}")
        columns.append(column.alias(aggregate.name))
    return held.group_by("window_start", window.by).agg(columns)


def _keys(window: Window) -> list[str]:
    return ["window_start", window.by, *([window.distinct] if window.distinct else [])]


def _too_late(window: Window) -> pl.Expr:
    return pl.col("_watermark") >= pl.col("window_start") + window.every + window.lateness
