"""What a model learns to say: where the truth comes from, and when it is known."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import polars as pl

from city.features.views import View

LABEL, NAIVE, KNOWN = "_label", "_naive", "_known"
"""The truth of a row, what one would have said without a model, and when the truth was there."""

Kind = Literal["classification", "regression", "anomaly"]
_LATER = "_later"


@dataclass(frozen=True)
class Label(ABC):
    """Gives rows their truth. The classes of a classification are in their order."""

    classes: tuple[str, ...] = ()
    unit: str = ""
    truth: str = ""
    """The table that tells, `layer/name`; without one the view itself does."""

    @property
    def kind(self) -> Kind:
        return "classification" if self.classes else "regression"

    @property
    def ahead(self) -> timedelta:
        """How long after a row's time that is which is predicted."""
        return timedelta()

    @property
    def uses(self) -> tuple[str, ...]:
        """Features of the view that it is made from."""
        return ()

    @property
    @abstractmethod
    def wait(self) -> timedelta:
        """How long after a row's time the truth is known, at most."""

    @property
    def least_span(self) -> timedelta:
        """How far a model's rows must reach, so that each of its three parts has some whose truth is known."""
        return 9 * self.wait

    @property
    @abstractmethod
    def says(self) -> str:
        """What is predicted, in words."""

    def tells(self, begin: datetime) -> pl.Expr:
        """The rows of `truth` that can tell of rows from `begin` on."""
        return pl.lit(value=True)

    @abstractmethod
    def labelled(self, view: View, rows: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
        """The rows whose truth is known, with `_label`, `_naive` and `_known`, in order of time."""


@dataclass(frozen=True, kw_only=True)
class Later(Label):
    """A feature of the same entity, `after` so long: of its row nearest to then, within the tolerance."""

    column: str
    after: timedelta
    tolerance: timedelta
    of: Callable[[pl.Expr], pl.Expr] = lambda value: value
    """The label, from the column's later value."""
    naive: Callable[[pl.Expr], pl.Expr] | None = None
    """What one would say from the column as it is now; by default that it stays."""

    @property
    def ahead(self) -> timedelta:
        return self.after

    @property
    def uses(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def wait(self) -> timedelta:
        return self.after + self.tolerance

    @property
    def says(self) -> str:
        return f"{self.column} {self.after} ahead"

    def labelled(self, view: View, rows: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
        ordered = rows.sort(view.time)
        later = ordered.select(*view.entities, **{_LATER: pl.col(view.time), LABEL: pl.col(self.column)})
        found = ordered.with_columns(_at=pl.col(view.time) + self.after).join_asof(
            later,
            left_on="_at",
            right_on=_LATER,
            by=list(view.entities),
            strategy="nearest",
            tolerance=self.tolerance,
            check_sortedness=False,
        )
        naive = self.naive or self.of
        return (
            found.filter(pl.col(LABEL).is_not_null(), pl.col(_LATER) > pl.col(view.time))
            .with_columns(self.of(pl.col(LABEL)).alias(LABEL), naive(pl.col(self.column)).alias(NAIVE))
            .rename({_LATER: KNOWN})
            .drop("_at")
        )


@dataclass(frozen=True, kw_only=True)
class Until(Label):
    """The hours until the entity's next event in the table `truth` (the rows where the SQL condition `where` holds, at
    `time`), at most `cap`: further ahead nothing shows yet. A row counts when the cap has passed, event or not: those
    of which the end is known sooner would be the short-lived ones."""

    where: str
    time: str
    cap: timedelta

    @property
    def wait(self) -> timedelta:
        return self.cap

    @property
    def says(self) -> str:
        return f"hours until {self.where}, at most {self.cap.total_seconds() / 3600:g}"

    def tells(self, begin: datetime) -> pl.Expr:
        return pl.col(self.time) > begin

    def labelled(self, view: View, rows: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
        events = truth.filter(pl.sql_expr(self.where)).select(*view.entities, **{_LATER: pl.col(self.time)})
        found = rows.sort(view.time).join_asof(
            events.sort(_LATER),
            left_on=view.time,
            right_on=_LATER,
            by=list(view.entities),
            strategy="forward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        time = pl.col(view.time)
        known = found.with_columns((time + self.cap).alias(KNOWN)).filter(pl.col(KNOWN) <= time.max())
        ends = pl.min_horizontal(_LATER, KNOWN)
        hours = (ends - time).dt.total_microseconds() / 3.6e9
        return known.with_columns(hours.alias(LABEL), pl.lit(None, pl.Float64).alias(NAIVE)).drop(_LATER)


@dataclass(frozen=True, kw_only=True)
class Reported(Label):
    """Whether the table `truth` reports a row, by `key` and at `time`, `within` so long: the second class where it
    does, the first where it does not. A row counts when that time has passed, reported or not."""

    key: str
    time: str
    within: timedelta

    @property
    def uses(self) -> tuple[str, ...]:
        return (self.key,)

    @property
    def wait(self) -> timedelta:
        return self.within

    @property
    def says(self) -> str:
        return f"whether {self.truth} reports it within {self.within}"

    def tells(self, begin: datetime) -> pl.Expr:
        return pl.col(self.time) >= begin - self.within  # a clock may be ahead of the other

    def labelled(self, view: View, rows: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
        time = pl.col(view.time)
        reports = truth.group_by(self.key).agg(pl.col(self.time).min().alias(_LATER))
        found = rows.sort(view.time).join(reports, on=self.key, how="left", maintain_order="left")
        found = found.with_columns((pl.col(_LATER) <= time + self.within).fill_null(value=False).alias(LABEL))
        first, second = self.classes
        return (
            found.with_columns((time + self.within).alias(KNOWN))
            .filter(pl.col(KNOWN) <= time.max())
            .with_columns(
                pl.when(LABEL).then(pl.lit(second)).otherwise(pl.lit(first)).alias(LABEL),
                pl.lit(None, pl.String).alias(NAIVE),
            )
            .drop(_LATER)
        )


@dataclass(frozen=True, kw_only=True)
class Normal(Label):
    """Nothing: what is learned is what rows look like when nothing is wrong. Left out are those within a stretch,
    from `begin` to `end`, that the table `truth` has of the entity, where the SQL condition `where` holds."""

    where: str
    begin: str
    end: str

    @property
    def kind(self) -> Kind:
        return "anomaly"

    @property
    def wait(self) -> timedelta:
        return timedelta()

    @property
    def says(self) -> str:
        return "how far it is from normal"

    def tells(self, begin: datetime) -> pl.Expr:
        return pl.col(self.end).is_null() | (pl.col(self.end) >= begin)

    def labelled(self, view: View, rows: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
        last = pl.col(self.end).cum_max().over(*view.entities, order_by=self.begin)
        wrong = truth.filter(pl.sql_expr(self.where)).select(*view.entities, _begin=self.begin, _end=last)
        found = rows.sort(view.time).join_asof(
            wrong.sort("_begin"),
            left_on=view.time,
            right_on="_begin",
            by=list(view.entities),
            strategy="backward",
            check_sortedness=False,
        )
        normal = found.filter((pl.col("_end") < pl.col(view.time)).fill_null(value=True)).drop("_begin", "_end")
        time = pl.col(view.time)
        return normal.with_columns(pl.lit(0.0).alias(LABEL), pl.lit(None, pl.Float64).alias(NAIVE), time.alias(KNOWN))
