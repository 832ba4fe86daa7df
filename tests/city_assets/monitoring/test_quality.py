"""A day of the environment's simulator with each fault: some check sees each, and none sees what is not there."""

import threading
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.decode import decode
from city.streaming.records import Batch, RawBatch
from city_assets.environment.contract import DEVICES, SENSORS
from city_assets.monitoring.daily_quality import assess, latest_scores, read_table
from simulators.faults import DEFAULT_FAULTS, FaultRates, Faults
from tests.lakes import stream
from tests.sensors import Sensor, fleet

DAY = date(2026, 5, 4)
BEGIN = datetime(2026, 5, 4, tzinfo=ZoneInfo("America/New_York")).astimezone(UTC)
STEP = timedelta(minutes=5)
# The check that is to see each of the simulator's faults.
SEEN_BY = {
    "spike": "out_of_range",
    "drop_out": "missing",
    "duplicate": "duplicate",
    "out_of_order": "out_of_order",
    "malformed": "malformed",
    "stuck": "stuck",
    "drifting": "drifting",
}


def simulate(lake: Path, rates: FaultRates, begin: datetime = BEGIN, steps: int = 288, announced: bool = True) -> None:
    """A day of eighty sensors, message by message, as the simulator makes them, into bronze and quarantine."""
    sensors: list[Sensor] = fleet(rates, 3)[:80]
    if announced:
        stream(lake, DEVICES, [sensor.announcement(begin) for sensor in sensors], begin)
    faults = Faults(rates, 4, spiked="value")
    messages: list[bytes] = []
    stamps: list[int] = []
    for number in range(steps):
        moment = begin + number * STEP
        for second, sensor in enumerate(sensors):
            at = moment + timedelta(seconds=second)
            arrived = faults.messages([sensor.reading(at)])
            messages += arrived
            stamps += [int(at.timestamp() * 1e6) + 200_000] * len(arrived)
    bronze = BronzeStream(lake, SENSORS)
    first, count = bronze.load([0])[0], len(messages)
    raw = RawBatch(
        list(messages),
        np.zeros(count, np.int32),
        np.arange(first, first + count, dtype=np.int64),
        np.asarray(stamps, np.int64),
        {0: first},
        {0: first + count},
    )
    rows, rejects = decode(SENSORS, raw, bronze.watermarks)
    bronze.commit(Batch(rows, raw.start, raw.end), rejects, {}, threading.Event(), lambda reason: None)


def failing(config: Settings, rates: FaultRates, name: str) -> set[str]:
    lake = config.home / name
    simulate(lake, rates)
    _, judged = assess(SENSORS, lake, DAY, None)
    return {one.name for one in judged if not one.passed}


@pytest.mark.usefixtures("unmeasured")
def test_every_fault_is_seen_and_a_clean_day_raises_nothing(
    config: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(SEEN_BY) == {f.name for f in fields(FaultRates)}, "a new fault needs a check"
    bad = FaultRates.scaled(1.0)
    failures = {"none": failing(config, FaultRates(), "none")}
    for fault in SEEN_BY:
        rate = max(getattr(bad, fault), 0.06 if fault in ("stuck", "drifting") else 0)  # of eighty sensors, some
        failures[fault] = failing(config, FaultRates(**{fault: rate}), fault)
    checks = sorted(set(SEEN_BY.values()))
    table = pl.DataFrame(
        [{"fault": fault} | {c: "x" if c in seen else "" for c in checks} for fault, seen in failures.items()]
    )
    with (
        capsys.disabled(),
        pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True),
    ):
        print(f"\n{table}")
    assert failures["none"] == set()
    for fault, check in SEEN_BY.items():
        assert check in failures[fault], fault


def test_what_the_simulators_do_by_default_is_a_good_day(config: Settings) -> None:
    assert failing(config, FaultRates.scaled(DEFAULT_FAULTS), "default") == set()


def test_a_sensor_nobody_announced_is_unknown(config: Settings) -> None:
    simulate(config.lake, FaultRates(), steps=20, announced=False)
    stream(config.lake, DEVICES, [fleet(FaultRates(), 3)[5].announcement(BEGIN)], BEGIN)
    measured, judged = assess(SENSORS, config.lake, DAY, None)
    assert measured["unknown_share"][0] == pytest.approx(79 / 80)
    assert {one.name for one in judged if not one.passed} == {"unknown"}


def test_scores_are_kept_by_day_and_shown_with_docs(config: Settings) -> None:
    simulate(config.lake, FaultRates.scaled(0.5))
    docs = config.home / "docs"
    for _ in range(2):
        measured, _ = assess(SENSORS, config.lake, DAY, docs)
    kept = read_table(config.lake / "monitoring/quality", {})
    assert kept.select("dataset", "day").rows() == [("sensors", DAY)], "a day once, however often it is assessed"
    score = measured["score"][0]
    assert 0.8 < score < 1
    assert latest_scores(config.lake) == {"quality.sensors": score}
    assert "sensors rows" in (docs / "index.html").read_text()


def test_an_empty_day_is_told_and_scored(config: Settings) -> None:
    measured, judged = assess(SENSORS, config.lake, DAY, None)
    assert [one.name for one in judged if not one.passed] == ["not_empty"]
    assert measured["rows"][0] == 0


def test_a_table_of_broken_rows_fails_row_by_row_expectations(config: Settings) -> None:
    simulate(config.lake, FaultRates(), steps=5)
    path = str(config.lake / "bronze" / "sensors")
    broken = pl.read_delta(path).head(3).with_columns(value=pl.lit(-999.0), _offset=pl.lit(10_000, dtype=pl.Int64))
    broken.write_delta(path, mode="append")
    _, judged = assess(SENSORS, config.lake, DAY, None)
    (rows,) = [one for one in judged if one.name == "rows_valid"]
    assert not rows.passed
    assert {"coordinates_once", "traffic_in_range"} <= set(rows.detail["failed"])


def test_a_day_that_is_half_as_loud_as_mondays_are_is_unusual(config: Settings) -> None:
    for week in range(4):
        begin = BEGIN - timedelta(days=7 * (week + 1))
        simulate(config.lake, FaultRates(), begin, announced=week == 0)
        assess(SENSORS, config.lake, DAY - timedelta(days=7 * (week + 1)), None)
    simulate(config.lake, FaultRates(), steps=150, announced=False)
    now = BEGIN + timedelta(days=2)
    _, judged = assess(SENSORS, config.lake, DAY, None, now)
    failed = {one.name for one in judged if not one.passed}
    assert "volume_usual" in failed
    assert "values_usual" not in failed


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller sample: what is expected is the same."""
    monkeypatch.setattr("city_assets.monitoring.daily_quality._SAMPLE", 2_000)
