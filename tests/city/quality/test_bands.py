"""Usual hours: learned from comparable hours of the past, and not widened by a few bad days."""

from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from city.quality.bands import band, unusual

DAY = date(2026, 5, 4)  # a Monday


def weeks() -> pl.DataFrame:
    """Four weeks of the hours 8 and 20, by day."""
    rows = []
    for number in range(28):
        day = date(2026, 4, 6) + timedelta(days=number)
        for hour, usual in ((8, 1000.0), (20, 300.0)):
            noise = 1 + 0.01 * ((number * 7 + hour) % 5)
            rows.append(
                {"day": day, "local_hour": hour, "weekday": day.isoweekday(), "kind": "all", "rows": usual * noise}
            )
    return pl.DataFrame(rows)


def history(values: list[float], kind: str = "all", first: date = DAY, hour: int = 8) -> pl.DataFrame:
    """The hour of successive weeks."""
    days = [first - timedelta(days=7 * (n + 1)) for n in range(len(values))]
    columns = {"day": days, "local_hour": hour, "weekday": first.isoweekday(), "kind": kind, "rows": values}
    return pl.DataFrame(columns, schema_overrides={"rows": pl.Float64, "day": pl.Date})


def today(value: float, kind: str = "all", day: date = DAY, hour: int = 8) -> pl.DataFrame:
    columns = {"day": [day], "local_hour": hour, "weekday": day.isoweekday(), "kind": kind, "rows": [value]}
    return pl.DataFrame(columns, schema_overrides={"rows": pl.Float64})


@pytest.mark.parametrize(("morning", "evening", "seen"), [(1010, 305, []), (400, 305, [8]), (1010, 900, [20])])
def test_a_band_knows_the_hours_of_the_week(morning: float, evening: float, seen: list[int]) -> None:
    day = pl.concat([today(morning), today(evening, hour=20)])
    assert unusual(day, weeks(), "rows", ["kind"])["local_hour"].to_list() == seen


def test_without_a_past_nothing_is_unusual() -> None:
    few = weeks().head(2)
    assert unusual(few, few, "rows", ["kind"]).is_empty()


@pytest.mark.parametrize(("hours", "judged"), [(2, False), (3, True)])
def test_a_band_needs_three_comparable_hours(hours: int, judged: bool) -> None:
    past = history([100.0] * hours)
    assert band(past, "rows", ["kind"]).is_empty() != judged
    assert unusual(today(900.0), past, "rows", ["kind"]).is_empty() != judged


@settings(deadline=None)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=12))
def test_the_middle_is_the_median_and_the_band_reaches_as_far_on_either_side(values: list[float]) -> None:
    (row,) = band(history(values), "rows", ["kind"]).rows(named=True)
    middle = pl.Series(values).median()
    assert row["middle"] == pytest.approx(middle)
    assert row["high"] - row["middle"] == pytest.approx(row["middle"] - row["low"])
    assert row["high"] - row["middle"] >= 0.15 * abs(row["middle"]) - 1e-9
    assert unusual(today(row["middle"]), history(values), "rows", ["kind"]).is_empty()


@settings(deadline=None)
@given(
    values=st.lists(st.integers(0, 1000), min_size=3, max_size=9),
    now=st.integers(0, 3000),
    scale=st.sampled_from([0.25, 4.0, 1024.0]),
)
def test_the_unit_of_a_value_does_not_matter(values: list[int], now: int, scale: float) -> None:
    plain = unusual(today(now), history([float(v) for v in values]), "rows", ["kind"])
    scaled = unusual(today(now * scale), history([v * scale for v in values]), "rows", ["kind"])
    assert plain.height == scaled.height


def test_two_bad_weeks_of_nine_do_not_widen_the_band() -> None:
    good = [1000.0, 1010, 990, 1005, 995, 1002, 998]
    past = history([*good, 0.0, 9000.0])
    assert unusual(today(400.0), past, "rows", ["kind"])["rows"].to_list() == [400.0]
    assert unusual(today(1100.0), past, "rows", ["kind"]).is_empty()


def test_weekends_hours_and_kinds_are_judged_by_their_own() -> None:
    saturday = DAY + timedelta(days=5)
    past = pl.concat(
        [
            history([1000.0] * 4),
            history([100.0] * 4, first=saturday),
            history([10.0] * 4, hour=9),
            history([1.0] * 4, kind="noise"),
        ]
    )

    def is_usual(value: float, **of: object) -> bool:
        return unusual(today(value, **of), past, "rows", ["kind"]).is_empty()  # type: ignore[arg-type]

    assert is_usual(1000)
    assert is_usual(1000, day=DAY + timedelta(days=2)), "a Wednesday is a working day, too"
    assert is_usual(100, day=saturday)
    assert is_usual(10, hour=9)
    assert is_usual(1, kind="noise")
    assert not is_usual(100)
    assert not is_usual(1000, day=saturday)
    assert not is_usual(1000, hour=9)
    assert not is_usual(1000, kind="noise")


def test_an_unusual_hour_comes_with_its_band() -> None:
    (row,) = unusual(today(400.0), history([1000.0] * 4), "rows", ["kind"]).rows(named=True)
    assert row == {
        "day": DAY,
        "local_hour": 8,
        "kind": "all",
        "rows": 400.0,
        "low": 850.0,
        "middle": 1000.0,
        "high": 1150.0,
    }


def test_an_hour_that_is_as_usual_on_its_weekday_is_usual() -> None:
    """Two weeks of working days, whose Friday evenings are busy."""
    friday = DAY + timedelta(days=4)
    others = [history([1000.0, 1010.0], first=DAY + timedelta(days=n), hour=20) for n in range(4)]
    past = pl.concat([*others, history([1900.0, 2000.0], first=friday, hour=20)])

    def is_usual(value: float, day: date) -> bool:
        return unusual(today(value, day=day, hour=20), past, "rows", ["kind"]).is_empty()

    assert is_usual(2050.0, friday)
    assert not is_usual(2050.0, DAY)
    assert not is_usual(3000.0, friday)
    one_friday = past.filter(pl.col("day") != friday - timedelta(days=14))
    assert not unusual(today(2050.0, day=friday, hour=20), one_friday, "rows", ["kind"]).is_empty()
