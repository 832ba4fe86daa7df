"""Slices: which rows of a table a build replaces."""

from datetime import date, timedelta

import narwhals as nw
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from city.tables.slices import Slices, chunks

DAY = date(2026, 5, 4)
dates = st.dates(date(2026, 1, 1), date(2026, 2, 28))
hours = st.none() | st.lists(st.integers(0, 23), min_size=1, max_size=5, unique=True).map(tuple)


@st.composite
def slices(draw: st.DrawFn) -> Slices:
    first = draw(dates)
    return Slices(first, first + timedelta(days=draw(st.integers(0, 9))), draw(hours))


def test_chunks_are_runs_of_days_of_bounded_size() -> None:
    days = [DAY + timedelta(days=n) for n in (0, 1, 2, 3, 7)]
    pieces = list(chunks(days, dict.fromkeys(days, 10), 20))
    assert pieces == [Slices(days[0], days[1]), Slices(days[2], days[3]), Slices(days[4], days[4])]
    assert list(chunks(days[:3], {}, None)) == [Slices(days[0], days[2])]
    assert list(chunks([], {}, 5)) == []


@settings(deadline=None)
@given(rows=st.dictionaries(dates, st.integers(0, 30)), limit=st.none() | st.integers(1, 60))
def test_chunks_have_each_day_once_and_are_as_long_as_allowed(rows: dict[date, int], limit: int | None) -> None:
    parts = list(chunks(list(rows), rows, limit))
    assert [day for part in parts for day in part.days()] == sorted(rows)
    sizes = [sum(rows[day] for day in part.days()) for part in parts]
    if limit is not None:
        assert all(size <= limit or part.first == part.last for size, part in zip(sizes, parts, strict=True))
    for size, part, following in zip(sizes, parts, parts[1:], strict=False):
        is_gap = following.first - part.last > timedelta(days=1)
        assert is_gap or (limit is not None and size + rows[following.first] > limit), "two chunks could be one"


def test_slices_say_the_same_in_sql_and_as_a_filter() -> None:
    frame = pl.DataFrame({"day": [DAY, DAY, DAY + timedelta(days=1)], "local_hour": [1, 2, 1]})
    slices = Slices(DAY, DAY, (1, 5))
    kept = nw.from_native(frame).filter(slices.expr()).to_native()
    assert slices.sql() == "day >= '2026-05-04' AND day <= '2026-05-04' AND local_hour IN (1, 5)"
    assert kept.rows() == [(DAY, 1)]


@settings(deadline=None)
@given(slices=slices(), rows=st.lists(st.tuples(dates, st.integers(0, 23)), max_size=30))
def test_every_form_of_the_condition_selects_the_same_rows(slices: Slices, rows: list[tuple[date, int]]) -> None:
    expected = [
        (day, hour)
        for day, hour in rows
        if slices.first <= day <= slices.last and (slices.hours is None or hour in slices.hours)
    ]
    frame = pl.DataFrame(rows, {"day": pl.Date(), "local_hour": pl.Int64()}, orient="row")
    assert nw.from_native(frame).filter(slices.expr()).to_native().rows() == expected
    # In SQL and in Delta's filters a day is compared as text.
    texts = frame.with_columns(pl.col("day").cast(pl.String))
    assert texts.filter(pl.sql_expr(slices.sql())).rows() == [(str(day), hour) for day, hour in expected]
    compare = {">=": str.__ge__, "<=": str.__le__, "in": lambda value, values: value in values}
    text = [{"day": str(day), "local_hour": str(hour)} for day, hour in rows]
    kept = [all(compare[operator](row[name], value) for name, operator, value in slices.filters()) for row in text]
    assert [row for row, keep in zip(rows, kept, strict=True) if keep] == expected


@settings(deadline=None)
@given(slices=slices(), days=st.integers(0, 40))
def test_before_adds_days_at_the_beginning_and_takes_all_their_hours(slices: Slices, days: int) -> None:
    wider = slices.before(days)
    assert wider.hours is None
    assert wider.days()[days:] == slices.days()
    assert len(wider.days()) == len(slices.days()) + days
