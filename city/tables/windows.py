"""Derives the table of each window of a contract. It computes from bronze what the stream computes live."""

import narwhals as nw

from city.contracts.model import Aggregate, Contract, Count, Distinct, Mean, Std, Window
from city.tables import calendar
from city.tables.model import Column, Frame, Source, Table
from city.tables.silver import event_columns

START = "window_start"


def window_table(contract: Contract, window: Window) -> Table:
    """Returns the table of a contract's windows, computed from its bronze rows.

    It has the same rows as the stream: the rows' own watermarks decide which events are late, as they do there.
    """

    def transform(events: Frame, calendar: Frame) -> Frame:
        return windows(contract, window, events, calendar)

    by = next(column for column in event_columns(contract) if column.name == window.by)
    return Table(
        name=window.name,
        layer="gold",
        description=window.description,
        key=(START, window.by),
        time=START,
        columns=(
            Column(
                name=START, kind="timestamp", description="its beginning", origins=(f"events.{contract.event_time}",)
            ),
            Column(name=window.by, kind="string", description=by.description, origins=(f"events.{window.by}",)),
            *(_aggregate_column(contract, aggregate) for aggregate in window.aggregates),
            calendar_day(),
        ),
        sources={
            "events": Source(table=f"bronze/{contract.name}", where=window.where),
            "calendar": Source(table="reference/calendar"),
        },
        transform=transform,
    )


def windows(contract: Contract, window: Window, events: Frame, days: Frame) -> Frame:
    """Computes one row for each window and `by`: the declared aggregates, and the local day on which it begins."""
    every, late = (int(duration.total_seconds()) for duration in (window.every, window.lateness))
    seconds = nw.col(f"_{contract.event_time}_seconds")
    start_seconds = seconds - seconds % every
    timely = events.filter(nw.col("__watermark_seconds") < start_seconds + every + late)
    with_start = timely.with_columns(
        **{START: floor(contract.event_time, every // 60), f"_{START}_seconds": start_seconds}
    )
    return calendar.on_calendar(
        with_start.group_by(START, f"_{START}_seconds", window.by).agg(**_aggregate_expressions(window)), START, days
    )


def floor(time: str, minutes: int) -> nw.Expr:
    """Truncates a time to the beginning of its interval of so many minutes (a divisor of 60).

    Spark truncates to one minute only, so the rest is subtracted.
    """
    start = minute = nw.col(time).dt.truncate("1m")
    rest = nw.col(time).dt.minute() % minutes
    for ahead in range(1, minutes):
        start = nw.when(rest == ahead).then(minute.dt.offset_by(f"-{ahead}m")).otherwise(start)
    return start


def calendar_day() -> Column:
    """Returns the calendar's column of the local day."""
    return calendar.COLUMNS[0]


def _aggregate_expressions(window: Window) -> dict[str, nw.Expr]:
    expressions: dict[str, nw.Expr] = {}
    for aggregate in window.aggregates:
        column = nw.col(aggregate.source_column) if aggregate.source_column else None
        if column is None:
            expressions[aggregate.name] = nw.len()
        elif isinstance(aggregate, Count):
            expressions[aggregate.name] = column.count()
        elif isinstance(aggregate, Distinct):
            expressions[aggregate.name] = column.n_unique()
        elif isinstance(aggregate, Mean):
            expressions[aggregate.name] = column.mean()
        elif isinstance(aggregate, Std):
            expressions[aggregate.name] = column.std()
        else:
            raise TypeError(f"window {window.name!r}: no rule for an aggregate of type {type(aggregate).__name__}")
    return expressions


def _aggregate_column(contract: Contract, aggregate: Aggregate) -> Column:
    origins = (f"events.{aggregate.source_column}",) if aggregate.source_column else ()
    if isinstance(aggregate, Count) and origins:  # null in windows of a release that did not count them yet
        description = f"number of values of {aggregate.source_column}"
        return Column(name=aggregate.name, kind="integer", nullable=True, description=description, origins=origins)
    if isinstance(aggregate, Count | Distinct):
        return Column(
            name=aggregate.name, kind="integer", description=type(aggregate).__name__.lower(), origins=origins
        )
    unit = contract.field(aggregate.source_column).unit
    description = f"{'mean' if isinstance(aggregate, Mean) else 'standard deviation'} of {aggregate.source_column}"
    return Column(name=aggregate.name, kind="float", unit=unit, nullable=True, description=description, origins=origins)
