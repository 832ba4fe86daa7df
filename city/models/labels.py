"""Labels: what a model predicts, where the truth comes from, and when it is known."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import polars as pl

from city.features.views import View
from city.models.row_order import in_order
from city.settings import Settings, settings

LABEL, NAIVE, KNOWN = "_label", "_naive", "_known"
"""Columns: the truth of a row, the prediction without a model, and the time from which the truth is known."""

LEAST_WAITS = 9
"""The rows of a training cover at least so many times the longest time until a truth is known."""

Kind = Literal["classification", "regression", "anomaly"]
_LATER = "_later"


@dataclass(frozen=True)
class Label(ABC):
    """Adds the truth to rows. `classes` are the classes of a classification, in order; `unit` is that of a number."""

    classes: tuple[str, ...] = ()
    unit: str = ""
    truth: str = ""
    """The table with the truth, by `layer/name`. Where it is empty, the view itself has the truth."""

    @property
    def kind(self) -> Kind:
        """The kind of model that learns this label."""
        return "classification" if self.classes else "regression"

    @property
    def ahead(self) -> timedelta:
        """How long after a row's time the predicted event or value is."""
        return timedelta()

    @property
    def source_features(self) -> tuple[str, ...]:
        """The features of the view that the label is derived from."""
        return ()

    @property
    @abstractmethod
    def wait(self) -> timedelta:
        """The longest time from a row to the moment when its truth is known."""

    @property
    def least_span(self) -> timedelta:
        """The time that a model's rows must cover, so that each of its three parts has rows whose truth is known."""
        return LEAST_WAITS * self.wait

    def wait_of(self, rows: pl.DataFrame) -> timedelta:
        """Returns the longest time from one of these rows of a view to the moment when its truth is known."""
        return self.wait

    @property
    @abstractmethod
    def description(self) -> str:
        """The description of what is predicted."""

    def truth_condition(self, begin: datetime) -> pl.Expr:
        """Returns the condition of the rows of `truth` that can decide the label of rows from `begin` on."""
        return pl.lit(value=True)

    @abstractmethod
    def label_rows(self, view: View, rows: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
        """Returns the rows whose truth is known, with `_label`, `_naive` and `_known`, in the order of `in_order`."""


@dataclass(frozen=True, kw_only=True)
class FutureValue(Label):
    """The later value of a feature of the same entity.

    It is the value of the row nearest to the time `after` the row's own, within the tolerance.
    """

    column: str
    after: timedelta
    tolerance: timedelta
    transform: Callable[[pl.Expr], pl.Expr] = lambda value: value
    """Computes the label from the column's later value."""
    naive: Callable[[pl.Expr], pl.Expr] | None = None
    """Computes the prediction without a model from the column's present value. By default it stays as it is."""

    @property
    def ahead(self) -> timedelta:
        """The time `after` the row."""
        return self.after

    @property
    def source_features(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    @property
    def wait(self) -> timedelta:
        """The time `after` the row, and the tolerance."""
        return self.after + self.tolerance

    @property
    def description(self) -> str:
        """The column, and how far ahead it is."""
        return f"{self.column} {self.after} ahead"

    def label_rows(self, view: View, rows: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
        """Labels rows by the later values of the column."""
        ordered = in_order(view, rows)
        later = ordered.select(*view.entities, **{_LATER: pl.col(view.time), LABEL: pl.col(self.column)})
        joined = ordered.with_columns(_at=pl.col(view.time) + self.after).join_asof(
            later,
            left_on="_at",
            right_on=_LATER,
            by=list(view.entities),
            strategy="nearest",
            tolerance=self.tolerance,
            check_sortedness=False,
        )
        naive = self.naive or self.transform
        return (
            joined.filter(pl.col(LABEL).is_not_null(), pl.col(_LATER) > pl.col(view.time))
            .with_columns(self.transform(pl.col(LABEL)).alias(LABEL), naive(pl.col(self.column)).alias(NAIVE))
            .rename({_LATER: KNOWN})
            .drop("_at")
        )


def delay_of(model: str, simulated: timedelta, real: timedelta, config: Settings | None = None) -> timedelta:
    """Returns the time within which an outcome of a model is reported: CITY_LABEL_DAYS, else one of two.

    In a city with servers of its own (CITY_KAFKA_ADDRESS) the events are `real`. An embedded city simulates them.
    """
    config = config or settings()
    if (days := config.label_days.get(model)) is not None:
        return timedelta(days=days)
    return real if config.kafka_address else simulated


@dataclass(frozen=True, kw_only=True)
class DelayedReport(Label):
    """Whether the table `truth` reports a row within a time.

    A report has the row's `key`, and its `time` is at most `within` after the row. The label is the second class where
    there is a report, and the first class where there is none. A row counts when that time has passed, reported or not,
    by the newest row or report.
    """

    key: str
    time: str
    within: timedelta

    @property
    def source_features(self) -> tuple[str, ...]:
        """The key."""
        return (self.key,)

    @property
    def wait(self) -> timedelta:
        """The time `within` which a report may come."""
        return self.within

    @property
    def description(self) -> str:
        """The table that reports a row, and within which time."""
        return f"whether {self.truth} reports it within {self.within}"

    def truth_condition(self, begin: datetime) -> pl.Expr:
        """Returns the condition of reports from `within` before `begin` on."""
        return pl.col(self.time) >= begin - self.within  # one clock may be ahead of the other

    def label_rows(self, view: View, rows: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
        """Labels rows by whether they are reported."""
        time = pl.col(view.time)
        reports = truth.group_by(self.key).agg(pl.col(self.time).min().alias(_LATER))
        joined = in_order(view, rows).join(reports, on=self.key, how="left", maintain_order="left")
        joined = joined.with_columns((pl.col(_LATER) <= time + self.within).fill_null(value=False).alias(LABEL))
        first, second = self.classes
        # A report that is newer than all rows shows that the time of the older ones has passed.
        newest = pl.max_horizontal(time.max(), pl.lit(reports[_LATER].max(), reports.schema[_LATER]))
        return (
            joined.with_columns((time + self.within).alias(KNOWN))
            .filter(pl.col(KNOWN) <= newest)
            .with_columns(
                pl.when(LABEL).then(pl.lit(second)).otherwise(pl.lit(first)).alias(LABEL),
                pl.lit(None, pl.String).alias(NAIVE),
            )
            .drop(_LATER)
        )


@dataclass(frozen=True, kw_only=True)
class NormalState(Label):
    """No label: the model learns what rows look like when nothing is wrong.

    Rows within a period of a fault are left out. The table `truth` has these periods for each entity, from its column
    `begin` to its column `end`, in the rows for which the SQL condition `where` is true.
    """

    where: str
    begin: str
    end: str

    @property
    def kind(self) -> Kind:
        """Always anomaly."""
        return "anomaly"

    @property
    def wait(self) -> timedelta:
        """No time: the truth is known at once."""
        return timedelta()

    @property
    def description(self) -> str:
        """A fixed text."""
        return "how far it is from normal"

    def truth_condition(self, begin: datetime) -> pl.Expr:
        """Returns the condition of periods that have no end, or end at `begin` or later."""
        return pl.col(self.end).is_null() | (pl.col(self.end) >= begin)

    def label_rows(self, view: View, rows: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
        """Selects the rows outside the periods of faults, with 0 as the label."""
        last = pl.col(self.end).cum_max().over(*view.entities, order_by=self.begin)
        wrong = truth.filter(pl.sql_expr(self.where)).select(*view.entities, _begin=self.begin, _end=last)
        joined = in_order(view, rows).join_asof(
            wrong.sort("_begin", "_end"),
            left_on=view.time,
            right_on="_begin",
            by=list(view.entities),
            strategy="backward",
            check_sortedness=False,
        )
        normal = joined.filter((pl.col("_end") < pl.col(view.time)).fill_null(value=True)).drop("_begin", "_end")
        time = pl.col(view.time)
        return normal.with_columns(pl.lit(0.0).alias(LABEL), pl.lit(None, pl.Float64).alias(NAIVE), time.alias(KNOWN))
