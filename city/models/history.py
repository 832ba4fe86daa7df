"""Selects the rows of a view that a model learns from, by the days that the Delta log counts.

So the cost of a training, and of the decision whether to train, does not grow with the age of the city.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import narwhals as nw
import polars as pl
from deltalake import DeltaTable

from city import local_time
from city.lake.snapshot import Snapshot
from city.models.model import Model, ModelError
from city.models.predictions import JUDGED_ROWS, LOSS, VERSION
from city.tables.model import DAY
from city.tables.schema import with_optional


@dataclass(frozen=True)
class Growth:
    """The number of rows of a view that a model can learn from."""

    rows: int
    then: int
    """How many of them the newest version could learn from when it was trained. 0 without a version."""
    span: timedelta
    """The time from the first of the rows to the last. 0 where there is a version."""


def view_table(model: Model, snapshot: Snapshot) -> DeltaTable:
    """Returns the table of the model's view at the snapshot. Raises ModelError where it has not been built yet."""
    table = snapshot.table(model.view.table.id)
    if table is None:
        name = model.view.table.id
        raise ModelError(
            f"model {model.name!r}: {name} has not been built yet; let the stream run for ten minutes, "
            f"or `city build {name} --first … --last …`"
        )
    return table


def training_days(by_day: Mapping[date, int], model: Model, most_rows: float | None = None) -> list[date]:
    """Selects the newest local days that a model learns from.

    They reach as far back as the model's `history`, and are no more than have `most_rows` rows of the view: by default
    those of the model. `by_day` is the number of rows of each day.
    """
    most_rows = model.most_rows if most_rows is None else most_rows
    days: list[date] = []
    rows = 0
    for day in sorted(by_day, reverse=True):
        if rows >= most_rows or (days and days[0] - day > model.history):
            break
        days.append(day)
        rows += by_day[day]
    return sorted(days)


def most_view_rows(model: Model, rows: pl.LazyFrame, by_day: Mapping[date, int]) -> float:
    """Returns how many rows of the view have the `most_rows` that meet the model's `where`, by those of the newest day.

    Only that day is read, and only where all days have more rows than the model learns from. Returns infinity where the
    day has no such row: then the model's `history` alone limits the days.
    """
    if model.where == "true" or sum(by_day.values()) <= model.most_rows:
        return model.most_rows
    newest = rows.filter(pl.col(DAY) == max(day for day, count in by_day.items() if count))
    share = newest.select(pl.sql_expr(model.where).fill_null(value=False).mean()).collect().item()
    return model.most_rows / share if share else float("inf")


def view_rows(model: Model, snapshot: Snapshot) -> pl.LazyFrame:
    """Returns the view's rows. Columns that an earlier release did not have are null.

    Raises ModelError where the view is not built yet.
    """
    table = model.view.table
    return with_optional(table, nw.from_native(pl.scan_delta(view_table(model, snapshot)))).to_native()


def training_rows(model: Model, snapshot: Snapshot) -> pl.LazyFrame:
    """Returns the view's rows that the model is about, of the days that it learns from.

    Raises ModelError where the view is not built yet.
    """
    rows = view_rows(model, snapshot)
    about = rows if model.where == "true" else rows.filter(pl.sql_expr(model.where))
    if not model.view.table.daily:
        return about
    by_day = snapshot.rows_by_day(model.view.table.id)
    return about.filter(pl.col(DAY).is_in(training_days(by_day, model, most_view_rows(model, rows, by_day))))


def growth(model: Model, snapshot: Snapshot, trained: datetime | None, timezone: str) -> Growth:
    """Computes how the view has grown since the time `trained` (None for a model that was never trained).

    The Delta log counts the rows of whole days. Only the times of at most two days are read, and what the model's
    `where` needs of one. Raises ModelError where
    the view has not been built yet.
    """
    rows, time = pl.scan_delta(view_table(model, snapshot)), pl.col(model.view.time)
    by_day = snapshot.rows_by_day(model.view.table.id)
    most_rows = most_view_rows(model, view_rows(model, snapshot), by_day)
    if trained is None:
        days = training_days(by_day, model, most_rows)
        ends = rows.filter(pl.col(DAY).is_in(days[:1] + days[-1:])).select(first=time.min(), last=time.max()).collect()
        span = ends["last"][0] - ends["first"][0] if days and ends["last"][0] is not None else timedelta()
        return Growth(sum(by_day[day] for day in days), 0, span)
    border = local_time.local_day(trained, timezone)
    on_border = 0
    if border in by_day:
        on_border = rows.filter(pl.col(DAY) == border, time <= trained).select(pl.len()).collect().item()
    earlier = {day: count for day, count in by_day.items() if day < border} | {border: on_border}
    then = int(min(most_rows, sum(earlier[day] for day in training_days(earlier, model, most_rows))))
    fresh = sum(count for day, count in by_day.items() if day >= border) - on_border
    return Growth(then + fresh, then, timedelta())


def recorded_losses(
    model: Model, snapshot: Snapshot, version: int, since: datetime, timezone: str, rows: int = JUDGED_ROWS
) -> pl.DataFrame | None:
    """Reads the predictions of a version that `decay` compares.

    These are the days with its first and its last `rows` known losses after `since`, and at most the model's `history`
    from either end. Returns None where nothing is recorded.
    """
    name = f"predictions/{model.name}"
    table = snapshot.table(name)
    if table is None:
        return None
    begin = local_time.local_day(since, timezone)
    days = [day for day, count in snapshot.rows_by_day(name).items() if day >= begin and count]
    scan = pl.scan_delta(table).select(VERSION, LOSS, model.view.time, DAY)
    version_losses = scan.filter(
        pl.col(VERSION) == version, pl.col(LOSS).is_not_null(), pl.col(model.view.time) > since
    )

    def read(order: Sequence[date]) -> Iterable[tuple[date, pl.DataFrame]]:
        row_count = 0
        for day in order:
            if row_count >= rows or abs(day - order[0]) > model.history:
                return
            losses = version_losses.filter(pl.col(DAY) == day).collect()
            row_count += losses.height
            yield day, losses

    first = dict(read(days))
    last = dict(read([day for day in reversed(days) if day not in first]))
    return pl.concat([frame for _, frame in sorted((first | last).items())]) if first else None
