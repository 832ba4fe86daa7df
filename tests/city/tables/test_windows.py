"""Window tables: they have the rows that somebody would count by hand, and leave out what came too late."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from statistics import fmean, stdev

import narwhals as nw
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from city.contracts import Contract, Count, Distinct, Field, Mean, Std, Window
from city.tables.calendar import calendar
from city.tables.schema import schema
from city.tables.windows import calendar_day, floor, window_table, windows

DAY = date(2026, 5, 4)
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
WINDOW = Window(
    name="things_minutes",
    every=timedelta(minutes=5),
    by="place",
    aggregates=(Count("events"), Distinct("things", "id"), Mean("size_mean", "size"), Std("size_std", "size")),
    lateness=timedelta(minutes=2),
    description="Things by place.",
)
THINGS = Contract(
    name="things",
    topic="things",
    version=1,
    description="Things.",
    key="id",
    event_time="at",
    fields=(
        Field(name="id", kind="string", description="who"),
        Field(name="at", kind="timestamp", description="when"),
        Field(name="place", kind="string", description="where"),
        Field(name="size", kind="float", description="how large", unit="m"),
    ),
    windows=(WINDOW,),
)
SLOTS = calendar([DAY], "America/New_York", "US")
seconds = st.integers(-3600, 3600)


@settings(deadline=None)
@given(second=st.integers(0, 10**6), minutes=st.sampled_from([1, 2, 3, 5, 10, 12, 15, 20, 30]))
def test_a_time_is_cut_to_its_interval(second: int, minutes: int) -> None:
    moment = NOON + timedelta(seconds=second, milliseconds=7)
    times = nw.from_native(pl.DataFrame({"at": [moment]}, {"at": pl.Datetime("us", "UTC")}))
    cut = times.select(start=floor("at", minutes)).to_native().item()
    assert cut == moment.replace(minute=moment.minute // minutes * minutes, second=0, microsecond=0)


@settings(deadline=None)
@given(
    events=st.lists(
        st.tuples(seconds, st.sampled_from("ab"), st.sampled_from("xyz"), st.floats(-100, 100), st.integers(0, 1200)),
        max_size=40,
    )
)
def test_windows_are_what_one_counts_by_hand(events: list[tuple[int, str, str, float, int]]) -> None:
    """Each event has a time, a place, an id, a size, and how far the watermark was ahead of it."""
    expected = defaultdict(list)
    for second, place, name, size, ahead in events:
        moment = NOON + timedelta(seconds=second)
        start = moment.replace(minute=moment.minute // 5 * 5, second=0)
        if moment + timedelta(seconds=ahead) < start + WINDOW.every + WINDOW.lateness:
            expected[start, place].append((name, size))
    noon = int(NOON.timestamp())
    frame = pl.DataFrame(
        {
            "at": pl.Series([NOON + timedelta(seconds=e[0]) for e in events], dtype=pl.Datetime("us", "UTC")),
            "_at_seconds": pl.Series([noon + e[0] for e in events], dtype=pl.Int64),
            "__watermark_seconds": pl.Series([noon + e[0] + e[4] for e in events], dtype=pl.Int64),
            "place": pl.Series([e[1] for e in events], dtype=pl.String),
            "id": pl.Series([e[2] for e in events], dtype=pl.String),
            "size": pl.Series([e[3] for e in events], dtype=pl.Float64),
        }
    )
    result = windows(THINGS, WINDOW, nw.from_native(frame.lazy()), nw.from_native(SLOTS.lazy()))
    rows: pl.DataFrame = result.collect().to_native()
    assert {(row["window_start"], row["place"]) for row in rows.iter_rows(named=True)} == set(expected)
    assert rows.height == len(expected)
    for row in rows.iter_rows(named=True):
        inside = expected[row["window_start"], row["place"]]
        sizes = [size for _, size in inside]
        assert (row["events"], row["things"]) == (len(inside), len({name for name, _ in inside}))
        assert row["size_mean"] == pytest.approx(fmean(sizes), abs=1e-9)
        assert row["size_std"] == (pytest.approx(stdev(sizes), abs=1e-6) if len(sizes) > 1 else None)
        assert row["day"] == DAY


def test_a_window_has_the_local_day_of_its_beginning() -> None:
    last = datetime(2026, 5, 5, 3, 58, tzinfo=UTC)  # the local day ends at four o'clock
    times = [last, last + timedelta(minutes=3)]
    frame = pl.DataFrame({"at": times, "place": ["a", "a"], "id": ["x", "x"], "size": [1.0, 2.0]}).with_columns(
        pl.col("at").dt.cast_time_unit("us"), _at_seconds=pl.col("at").dt.epoch("s"), __watermark_seconds=0
    )
    result = windows(THINGS, WINDOW, nw.from_native(frame.lazy()), nw.from_native(SLOTS.lazy()))
    assert result.collect().to_native()["size_mean"].to_list() == [1.0], "the other is of a day that is not built"


def test_the_declaration_follows_from_the_contract_s() -> None:
    table = window_table(THINGS, WINDOW)
    assert (table.id, table.key, table.time) == ("gold/things_minutes", ("window_start", "place"), "window_start")
    assert list(schema(table)) == ["window_start", "place", "events", "things", "size_mean", "size_std", "day"]
    mean = table.column("size_mean")
    assert (mean.unit, mean.nullable, mean.description, mean.origins) == (
        "m",
        True,
        "mean of size",
        ("events.size",),
    )
    assert table.column("size_std").description == "standard deviation of size"
    assert table.column("events").kind == "integer"
    assert table.sources["events"].where == WINDOW.where
    assert table.column("day") == calendar_day()
