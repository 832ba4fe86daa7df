from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from city.contracts import Aggregate, Window
from city.contracts.schema import bronze_schema
from city.streaming.records import Batch, Offsets, below_position
from city.streaming.windows import ContractWindows, WindowOperator, compute, moments, results
from city_assets.environment.contract import SENSORS
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.events import NOW

WINDOW = VEHICLE_POSITIONS.windows[0]


def rows(*events: tuple[float, str, str, float | None], partition: int = 0) -> pl.DataFrame:
    """Bronze rows of (seconds after NOW, vehicle, cell, speed), in the order of their offsets."""
    times = [NOW + timedelta(seconds=seconds) for seconds, *_ in events]
    watermarks = [max(times[: index + 1]) for index in range(len(times))]
    data: dict[str, Any] = {
        "vehicle_id": [vehicle for _, vehicle, _, _ in events],
        "timestamp": times,
        "latitude": [40.7] * len(events),
        "longitude": [-74.0] * len(events),
        "speed": [speed for *_, speed in events],
        "trip_id": [None] * len(events),
        "cell": [cell for _, _, cell, _ in events],
        "_partition": [partition] * len(events),
        "_offset": list(range(len(events))),
        "_arrived": times,
        "_watermark": watermarks,
    }
    return pl.DataFrame(data, schema=bronze_schema(VEHICLE_POSITIONS))


def operator_over(everything: pl.DataFrame, newest: datetime | None = None) -> WindowOperator:
    def earlier(first: datetime, until: datetime, below: Offsets) -> pl.DataFrame:
        time = pl.col("timestamp")
        return everything.filter((time >= first) & (time < until) & below_position(below))

    return WindowOperator(VEHICLE_POSITIONS, WINDOW, earlier, newest)


def test_a_window_counts_vehicles_once_and_positions_all() -> None:
    computed = compute(VEHICLE_POSITIONS, WINDOW, rows((0, "a", "c", 10), (1, "a", "c", 20), (2, "b", "c", 30)))
    assert computed.to_dicts() == [
        {
            "window_start": NOW - timedelta(seconds=30),
            "cell": "c",
            "vehicle_count": 2,
            "positions": 3,
            "speeds": 3,
            "speed_mean": 20.0,
            "speed_std": 10.0,
        }
    ]


def test_a_speed_that_is_not_known_is_counted_as_a_position_and_not_in_the_mean() -> None:
    some = rows((0, "a", "c", 10), (1, "a", "c", None), (2, "b", "c", 30), (3, "e", "c", None), (4, "e", "d", None))
    whole = compute(VEHICLE_POSITIONS, WINDOW, some).sort("cell")
    columns = "cell", "vehicle_count", "positions", "speeds", "speed_mean", "speed_std"
    assert whole.select(columns).rows() == [("c", 3, 4, 2, 20.0, pytest.approx(200**0.5)), ("d", 1, 1, 0, None, None)]
    operator = operator_over(some)
    changed = [operator.add(some[index : index + 1], {0: index}) for index in range(5)]
    assert [row["speed_mean"][0] for row in changed] == [10.0, 10.0, 20.0, 20.0, None]
    assert [row["speeds"][0] for row in changed] == [1, 1, 2, 2, 0]


def test_windows_are_aligned_to_two_minutes_and_kept_apart_by_cell() -> None:
    computed = compute(
        VEHICLE_POSITIONS, WINDOW, rows((0, "a", "c", 1), (89.9, "a", "c", 1), (90, "a", "c", 1), (0, "a", "d", 1))
    )
    starts = [(row["window_start"] - NOW).total_seconds() for row in computed.to_dicts()]
    assert sorted(zip(starts, computed["cell"], computed["positions"], strict=True)) == [
        (-30, "c", 2),
        (-30, "d", 1),
        (90, "c", 1),
    ]


def test_one_event_has_no_deviation() -> None:
    assert compute(VEHICLE_POSITIONS, WINDOW, rows((0, "a", "c", 10)))["speed_std"].to_list() == [None]


def test_late_events_change_their_window_until_the_lateness_is_over() -> None:
    everything = rows((0, "a", "c", 10), (500, "b", "d", 10), (1, "b", "c", 30), (689.9, "e", "d", 1), (2, "f", "c", 5))
    operator = operator_over(everything)
    changed = [operator.add(everything[index : index + 1], {0: index}) for index in range(5)]
    assert changed[2].select("vehicle_count", "speed_mean").row(0) == (2, 20.0)
    assert changed[4]["positions"].to_list() == [3]
    assert (operator.late, operator.too_late) == (2, 0)
    too_late = rows((700, "g", "d", 1), (3, "h", "c", 99)).with_columns(_offset=pl.col("_offset") + 5)
    assert operator.add(too_late, {0: 5})["cell"].to_list() == ["d"]
    assert (operator.late, operator.too_late) == (2, 1)


def test_an_empty_batch_changes_nothing() -> None:
    assert operator_over(rows()).add(rows(), {0: 0}).is_empty()


def test_a_window_can_be_limited_to_some_events() -> None:
    window = SENSORS.windows[0]
    data = {
        "timestamp": [NOW] * 3,
        "sensor_id": ["a", "b", "c"],
        "type": ["traffic", "noise", "traffic"],
        "location": ["downtown"] * 3,
        "value": [10.0, 99.0, 20.0],
        "unit": [""] * 3,
        "latitude": [None] * 3,
        "longitude": [None] * 3,
        "_partition": [0] * 3,
        "_offset": [0, 1, 2],
        "_arrived": [NOW] * 3,
        "_watermark": [NOW] * 3,
    }
    computed = compute(SENSORS, window, pl.DataFrame(data, schema=bronze_schema(SENSORS)))
    assert computed.select("location", "sensors", "readings", "traffic_mean").rows() == [("downtown", 2, 2, 15.0)]
    assert computed["window_start"].to_list() == [NOW - timedelta(seconds=30)]


def test_an_aggregate_without_a_rule_is_named() -> None:
    class Median(Aggregate):
        pass

    window = Window(name="w", every=timedelta(1), by="cell", aggregates=(Median("m", "speed"),), description="")
    with pytest.raises(TypeError, match="window 'w': no rule for an aggregate of type Median"):
        results(
            window,
            pl.DataFrame({"window_start": [1], "cell": ["c"], "_n": [1], "_values_speed": [1], "_sum_speed": [1.0]}),
        )


_EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2000), st.sampled_from("abc"), st.sampled_from(["c", "d"]), st.none() | st.integers(0, 90)
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(_EVENTS, _EVENTS, st.lists(st.integers(1, 39), max_size=6), st.integers(0, 39))
def test_batches_restarts_and_backfill_give_the_same_windows(
    first: list[Any], second: list[Any], cuts: list[int], restart: int
) -> None:
    """Two partitions with their own watermarks, cut into any batches, with a restart in between."""
    parts = [rows(*first), rows(*second, partition=1)]
    everything = pl.concat(parts)
    bounds = sorted({0, *cuts, restart, 40})
    operator = operator_over(everything)
    live: dict[tuple[Any, ...], dict[str, Any]] = {}
    for begin, end in pairwise(bounds):
        if begin == restart:
            seen = everything.filter(pl.col("_offset") < begin)
            operator = operator_over(everything, seen["_watermark"].max())  # type: ignore[arg-type]
        batch = everything.filter(pl.col("_offset").is_between(begin, end - 1))
        for row in operator.add(batch, {0: begin, 1: begin}).to_dicts():
            live[row["window_start"], row["cell"]] = row
    expected = compute(VEHICLE_POSITIONS, WINDOW, everything)
    schema = results(
        WINDOW, moments(WINDOW, expected.head(0).with_columns(vehicle_id=pl.lit("")).with_columns(speed=0.0))
    ).schema
    streamed = pl.DataFrame(list(live.values()), schema=schema, orient="row").sort("window_start", "cell")
    assert_frame_equal(streamed.cast(dict(expected.schema)), expected, check_exact=False, abs_tol=1e-6)  # type: ignore[arg-type]


def test_windows_are_shared_by_sinks_in_step_and_right_for_those_that_are_not() -> None:
    """Whatever the order in which sinks ask, and whatever batches nobody asks for."""
    everything = rows(*((float(n * 7), f"v{n % 5}", f"c{n % 3}", float(n)) for n in range(60)))
    spans: list[tuple[datetime, datetime]] = []

    def earlier(first: datetime, until: datetime, below: Offsets) -> pl.DataFrame:
        spans.append((first, until))
        time = pl.col("timestamp")
        return everything.filter((time >= first) & (time < until) & below_position(below))

    batches = [Batch(everything[n : n + 10], {0: n}, {0: n + 10}) for n in range(0, 60, 10)]
    shared = ContractWindows(VEHICLE_POSITIONS, earlier, lambda: everything["timestamp"].max(), {0: 0})  # type: ignore[arg-type,return-value]

    def wanted(batch: Batch) -> pl.DataFrame:
        upto = compute(VEHICLE_POSITIONS, WINDOW, everything[: batch.end[0]])
        touched = compute(VEHICLE_POSITIONS, WINDOW, batch.rows).select("window_start", "cell")
        return upto.join(touched, on=["window_start", "cell"], how="semi").sort("window_start", "cell")

    first = shared.changed(batches[0])
    assert shared.changed(batches[0]) is first
    for number in (1, 4, 5):  # 4 comes after a gap
        changed = shared.changed(batches[number])[WINDOW.name].sort("window_start", "cell")
        assert_frame_equal(changed, wanted(batches[number]), check_exact=False)
    for number in (2, 3):  # late: as of the last
        changed = shared.changed(batches[number])[WINDOW.name].sort("window_start", "cell")
        upto = compute(VEHICLE_POSITIONS, WINDOW, everything)
        touched = compute(VEHICLE_POSITIONS, WINDOW, batches[number].rows).select("window_start", "cell")
        wanted_now = upto.join(touched, on=["window_start", "cell"], how="semi").sort("window_start", "cell")
        assert_frame_equal(changed, wanted_now, check_exact=False)


def test_a_window_has_the_rows_of_partitions_that_a_batch_has_none_of() -> None:
    """Half of the window was there before a restart, and the first batch after it is of one partition."""
    before_restart = [rows((0, "a", "c", 1), (1, "b", "c", 1)), rows((2, "d", "c", 1), (3, "e", "c", 1), partition=1)]
    new = rows((4, "f", "c", 1)).with_columns(_offset=pl.lit(2, pl.Int64))
    everything = pl.concat([*before_restart, new])

    def earlier(first: datetime, until: datetime, below: Offsets) -> pl.DataFrame:
        time = pl.col("timestamp")
        return everything.filter((time >= first) & (time < until) & below_position(below))

    newest = NOW + timedelta(seconds=3)
    shared = ContractWindows(VEHICLE_POSITIONS, earlier, lambda: newest, {0: 2, 1: 2})
    changed = shared.changed(Batch(new, {0: 2}, {0: 3}))[WINDOW.name]
    assert changed["positions"].to_list() == [5]


def test_windows_are_right_after_a_reading_that_failed() -> None:
    everything = rows(*((float(n), f"v{n}", "c", 1.0) for n in range(20)))
    broken = [True]

    def earlier(first: datetime, until: datetime, below: Offsets) -> pl.DataFrame:
        if broken.pop() if broken else False:
            raise OSError("too many open files")
        time = pl.col("timestamp")
        return everything.filter((time >= first) & (time < until) & below_position(below))

    shared = ContractWindows(VEHICLE_POSITIONS, earlier, lambda: everything["timestamp"].max(), {0: 10})  # type: ignore[arg-type,return-value]
    batch = Batch(everything[10:], {0: 10}, {0: 20})
    with pytest.raises(OSError, match="too many"):
        shared.changed(batch)
    assert shared.changed(batch)[WINDOW.name]["positions"].to_list() == [20]
