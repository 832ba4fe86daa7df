"""The label of a remaining life: the time until an entity's next event, or its share of a cap."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from city.features.views import View
from city.models.labels import KNOWN, LABEL, NAIVE, Label
from city.models.row_order import in_order

_LATER = "_later"


@dataclass(frozen=True, kw_only=True)
class TimeToEvent(Label):
    """The hours until the entity's next event, at most `cap`, because nothing shows yet further ahead.

    Events are the rows of the table `truth` for which the SQL condition `where` is true, at the column `time`. A row
    counts when the cap has passed, with or without an event: rows whose end is known sooner would be the short-lived
    ones.

    With `cap_hours`, each row has its own cap, and the label is the share of it that is left, from 0 to 1. So one model
    learns from entities whose lives are of different lengths. A long cap needs a long history: a row's truth is known a
    cap after it, and each part of a training needs such rows, so the
    rows must cover LEAST_WAITS caps.
    """

    where: str
    time: str
    cap: timedelta
    cap_hours: str = ""
    """The view's column with a row's own cap, in hours. A row that has none has `cap`."""

    @property
    def wait(self) -> timedelta:
        """The `cap`. Rows with a longer one of their own wait for that (`wait_of`)."""
        return self.cap

    @property
    def source_features(self) -> tuple[str, ...]:
        """The column with a row's own cap, where there is one."""
        return (self.cap_hours,) if self.cap_hours else ()

    @property
    def description(self) -> str:
        """The event, and the cap."""
        if self.cap_hours:
            return f"share of {self.cap_hours} until {self.where}"
        return f"hours until {self.where}, at most {self.cap.total_seconds() / 3600:g}"

    def wait_of(self, rows: pl.DataFrame) -> timedelta:
        """Returns the longest cap of the rows."""
        hours = rows.select(self._cap_hours().max()).item() if rows.height else None
        return self.cap if hours is None else timedelta(hours=hours)

    def _cap_hours(self) -> pl.Expr:
        cap = pl.lit(self.cap.total_seconds() / 3600)
        return pl.coalesce(self.cap_hours, cap) if self.cap_hours else cap

    def truth_condition(self, begin: datetime) -> pl.Expr:
        """Returns the condition of events after `begin`."""
        return pl.col(self.time) > begin

    def label_rows(self, view: View, rows: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
        """Labels rows by the hours until the next event, or by their share of the row's cap."""
        events = truth.filter(pl.sql_expr(self.where)).select(*view.entities, **{_LATER: pl.col(self.time)})
        joined = in_order(view, rows).join_asof(
            events.sort(_LATER),
            left_on=view.time,
            right_on=_LATER,
            by=list(view.entities),
            strategy="forward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        time = pl.col(view.time)
        cap = (self._cap_hours() * 3.6e9).round().cast(pl.Int64)
        complete = joined.with_columns((time + pl.duration(microseconds=cap)).alias(KNOWN))
        complete = complete.filter(pl.col(KNOWN) <= time.max())
        left = (pl.min_horizontal(_LATER, KNOWN) - time).dt.total_microseconds()
        label = left / cap if self.cap_hours else left / 3.6e9
        return complete.with_columns(label.alias(LABEL), pl.lit(None, pl.Float64).alias(NAIVE)).drop(_LATER)
