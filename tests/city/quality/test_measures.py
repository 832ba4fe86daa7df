"""Measures of a day: each counts what it is about, and nothing else."""

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from city.contracts.schema import QUARANTINE
from city.quality.measures import DIMENSIONS, Summary, measures, scores, summarise
from city_assets.environment.contract import SENSORS
from city_assets.traffic.contract import VEHICLE_POSITIONS

BEGIN = datetime(2026, 5, 4, 4, tzinfo=UTC)
SHARES = [name for names in DIMENSIONS.values() for name in names]
NO_REJECTS = pl.LazyFrame(schema=QUARANTINE)
Reading = tuple[float, str, float]


def frame(*readings: Reading, delay: float = 1.0, watermark: float = 0.0) -> pl.DataFrame:
    """Bronze rows of (seconds after BEGIN, sensor, value), which arrive `delay` seconds after their event."""
    times = [BEGIN + timedelta(seconds=seconds) for seconds, _, _ in readings]
    columns = {
        "timestamp": times,
        "sensor_id": [sensor for _, sensor, _ in readings],
        "type": ["noise"] * len(readings),
        "value": [value for _, _, value in readings],
        "_offset": [*range(len(readings))],
        "_arrived": [time + timedelta(seconds=delay) for time in times],
        "_watermark": [BEGIN + timedelta(seconds=watermark)] * len(readings),
    }
    kinds = dict.fromkeys(("timestamp", "_arrived", "_watermark"), pl.Datetime("us", "UTC"))
    return pl.DataFrame(columns, schema_overrides={**kinds, "sensor_id": pl.String, "value": pl.Float64})


def steady(sensor: str, count: int, every: float = 20.0, skipped: tuple[int, ...] = ()) -> list[Reading]:
    chance = random.Random(sensor)
    return [(every * n, sensor, 60 + chance.gauss(0, 0.3)) for n in range(count) if n not in skipped]


def measured(rows: pl.DataFrame, announced: list[str] | None = None, rejects: pl.LazyFrame = NO_REJECTS) -> Any:
    known = {} if announced is None else {"sensor_id": pl.Series(announced)}
    return measures(SENSORS, summarise(SENSORS, rows.lazy(), known), rejects).row(0, named=True)


def nonzero(row: dict[str, Any]) -> dict[str, float]:
    return {name: row[name] for name in SHARES if row[name]}


def test_a_good_day_has_only_zeros() -> None:
    values = measured(frame(*steady("a", 90), *steady("b", 90)), ["a", "b"])
    assert (values["rows"], values["keys"], values["quarantined"], nonzero(values)) == (180, 2, 0, {})


def test_an_empty_day_has_only_zeros() -> None:
    values = measured(frame())
    assert (values["rows"], values["keys"], nonzero(values)) == (0, 0, {})


def test_a_reading_that_came_twice_is_a_duplicate() -> None:
    readings = steady("a", 30)
    assert nonzero(measured(frame(*readings, *readings[:6]))) == {"duplicate_share": pytest.approx(6 / 36)}


def test_slow_is_more_than_a_minute_from_the_event_to_kafka() -> None:
    quick, slow = steady("a", 30), [(20.0 * n + 7, "b", float(n)) for n in range(10)]
    rows = pl.concat([frame(*quick, delay=60), frame(*slow, delay=60.001)])
    assert nonzero(measured(rows)) == {"slow_share": pytest.approx(10 / 40)}


def test_out_of_order_is_behind_the_watermark() -> None:
    values = measured(frame(*steady("a", 30), watermark=100))
    assert nonzero(values) == {"out_of_order_share": pytest.approx(5 / 30)}, "those at 0 to 80 s"


def test_who_was_not_announced_is_unknown_and_where_nobody_is_announced_all_are() -> None:
    rows = frame(*steady("a", 30), *steady("b", 10))
    assert nonzero(measured(rows, ["a"])) == {"unknown_share": pytest.approx(10 / 40)}
    assert nonzero(measured(rows, ["b", "c"])) == {"unknown_share": pytest.approx(30 / 40)}
    assert nonzero(measured(rows)) == {}, "the other contract is not there to be compared with"


def test_readings_are_missing_where_a_gap_is_longer_than_a_device_s_own_interval() -> None:
    often, seldom = steady("a", 60, every=10, skipped=(5, 6, 30)), steady("b", 20, every=150)
    values = measured(frame(*often, *seldom))
    due = 59 + 19  # after the first reading of each
    assert nonzero(values) == {"missing_share": pytest.approx(3 / due)}


def test_a_device_has_one_interval_in_the_history_and_another_live() -> None:
    """The first day of a city: seven hours of history, then live readings, which are far more frequent."""
    past = frame(*steady("a", 84, every=300)).with_columns(pl.col("_offset") - 100)
    live = frame(*((25_300 + seconds, key, value) for seconds, key, value in steady("a", 300, every=4, skipped=(7, 8))))
    values = measured(pl.concat([past, live]))
    assert nonzero(values) == {"missing_share": pytest.approx(2 / (83 + 299))}


def test_the_volume_is_that_of_live_rows_where_the_history_has_fewer() -> None:
    past = frame(*steady("a", 12, every=300)).with_columns(pl.col("_offset") - 100)
    rows = pl.concat([past, frame(*((2_700 + s, k, v) for s, k, v in steady("a", 450, every=4)))]).lazy()
    first = int(BEGIN.timestamp()) // 900
    live = summarise(SENSORS, rows, {}, has_sampled_history=True)
    assert live.volume.sort("slot").rows() == [(first + 3, 225), (first + 4, 225)]
    assert live.sums["rows"] == 462
    assert summarise(SENSORS, rows, {}).volume["rows"].sum() == 462


def test_a_gap_is_measured_across_quarters_and_hours() -> None:
    """Each quarter of an hour is summarised by itself."""
    readings = steady("a", 200, every=60, skipped=tuple(range(58, 63)))
    assert nonzero(measured(frame(*readings))) == {"missing_share": pytest.approx(5 / 199)}


def test_a_value_that_never_changes_is_stuck() -> None:
    stuck = [(20.0 * n, "b", 61.5) for n in range(60)]
    assert nonzero(measured(frame(*steady("a", 60), *stuck))) == {"stuck_share": 1 / 2}
    few = [(20.0 * n, "b", 61.5) for n in range(11)]
    assert nonzero(measured(frame(*steady("a", 60), *few))) == {}, "eleven readings are too few to say so"


def test_a_drift_is_seen_in_the_first_hour() -> None:
    """Twenty sensors, a reading each twenty seconds for forty minutes; one walks away by eighty times its noise."""
    chance, readings = np.random.default_rng(0), []
    for number in range(20):
        for step in range(120):
            at = BEGIN + timedelta(seconds=20 * step + number)
            walk = 0.2 * step if number == 7 else 0.0
            readings.append((at, f"downtown_noise_{number}", "noise", 60 + walk + chance.normal(0, 0.3), at, BEGIN, 0))
    columns = ["timestamp", "sensor_id", "type", "value", "_arrived", "_watermark", "_offset"]
    rows = pl.DataFrame(readings, columns, orient="row").sort("timestamp")
    values = measures(SENSORS, summarise(SENSORS, rows.lazy(), {}), NO_REJECTS)
    assert values.select("drifting_share", "stuck_share", "missing_share").row(0) == (1 / 20, 0, 0)


def test_what_all_devices_do_together_is_no_drift() -> None:
    """The day's own rhythm."""
    readings = [
        (seconds, sensor, value + seconds / 100) for n in range(6) for seconds, sensor, value in steady(f"s{n}", 120)
    ]
    assert nonzero(measured(frame(*readings))) == {}


def test_rejected_messages_are_malformed_unless_all_that_is_wrong_is_a_range() -> None:
    reasons = [["value: noise outside 30 to 140 dB"], ["not JSON"], ["value: outside 0 to 9", "unit: missing or null"]]
    rejects = pl.LazyFrame({"reasons": reasons})
    values = measured(frame(*steady("a", 17)), rejects=rejects)
    assert values["quarantined"] == 3
    assert nonzero(values) == {"malformed_share": 2 / 20, "out_of_range_share": 1 / 20}


def test_a_contract_without_quantities_has_no_devices_to_judge() -> None:
    times = [BEGIN + timedelta(seconds=n) for n in range(20)]
    columns = {"vehicle_id": "v", "timestamp": times, "_arrived": times, "_watermark": [BEGIN] * 20, "_offset": 0}
    rows = pl.DataFrame(columns)
    summary = summarise(VEHICLE_POSITIONS, rows.lazy(), {})
    assert summary.gaps.is_empty()
    assert summary.devices.is_empty()
    values = measures(VEHICLE_POSITIONS, summary, NO_REJECTS).row(0, named=True)
    assert (values["rows"], values["keys"], nonzero(values)) == (20, 1, {})


def test_the_volume_is_counted_by_quarter_of_an_hour_and_the_mean_by_kind() -> None:
    summary = summarise(SENSORS, frame((0, "a", 1.0), (899, "a", 3.0), (900, "a", 5.0), (7200, "b", 9.0)).lazy(), {})
    first = int(BEGIN.timestamp()) // 900
    assert summary.volume.rows() == [(first, 2), (first + 1, 1), (first + 8, 1)]
    kinds = summary.kinds.select("slot", "kind", "readings", "total").sort("slot").rows()
    assert kinds == [(first, "noise", 2, 4.0), (first + 1, "noise", 1, 5.0), (first + 8, "noise", 1, 9.0)]


@settings(max_examples=40, deadline=None)
@given(
    readings=st.lists(
        st.tuples(st.integers(0, 8000).map(float), st.sampled_from("abc"), st.integers(0, 9).map(float)),
        max_size=60,
        unique_by=lambda reading: reading[:2],
    ),
    seed=st.integers(0, 99),
)
def test_measures_are_shares_whatever_the_order_of_the_rows(readings: list[Reading], seed: int) -> None:
    rows = frame(*readings, watermark=1000)
    values = measured(rows, ["a"])
    assert all(0 <= values[name] <= 1 for name in SHARES), values
    assert values == pytest.approx(measured(rows.sample(fraction=1, shuffle=True, seed=seed), ["a"]))
    assert values["rows"] == len(readings)
    assert values["keys"] == len({sensor for _, sensor, _ in readings})


def test_a_summary_does_not_grow_with_the_rows() -> None:
    def cells(summary: Summary) -> int:
        return sum(f.height for f in (summary.volume, summary.kinds, summary.devices, summary.middles, summary.gaps))

    few, many = (summarise(SENSORS, frame(*steady("a", n, every=1800 / n)).lazy(), {}) for n in (180, 1800))
    assert few.sums["rows"] < many.sums["rows"]
    assert cells(few) == cells(many)


def test_one_bad_dimension_shows_in_the_score() -> None:
    clean = dict.fromkeys(SHARES, 0.0)
    worse = clean | {"duplicate_share": 0.5}
    assert scores(pl.DataFrame([clean]))["score"][0] == 1
    assert scores(pl.DataFrame([worse]))["score"][0] == pytest.approx(0.5 ** (1 / 6), abs=1e-4)


@settings(deadline=None)
@given(shares=st.fixed_dictionaries(dict.fromkeys(SHARES, st.floats(0, 1))))
def test_a_score_is_the_geometric_mean_of_its_dimensions(shares: dict[str, float]) -> None:
    row = scores(pl.DataFrame([shares])).row(0, named=True)
    for dimension, names in DIMENSIONS.items():
        assert row[dimension] == pytest.approx(max(0.0, 1 - sum(shares[name] for name in names)), abs=1e-6)
    product = math.prod(max(row[dimension], 1e-9) for dimension in DIMENSIONS)
    assert row["score"] == pytest.approx(product ** (1 / len(DIMENSIONS)), abs=1e-5)
