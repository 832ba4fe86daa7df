"""A day of the environment's simulator with each fault: some check sees each, and none sees what is not there."""

import threading
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from city.contracts.schema import QUARANTINE
from city.quality import expectations, suites
from city.quality.bands import unusual
from city.quality.measures import DIMENSIONS, measures, scores, summarise
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.decode import decode
from city.streaming.records import Batch, RawBatch
from city_assets.environment.contract import DEVICES, SENSORS
from city_assets.monitoring.quality import assess, latest_scores, read_table
from simulators.environment import Sensor, fleet
from simulators.faults import DEFAULT_FAULTS, FaultRates, Faults
from tests.lakes import stream

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
    found = {"none": failing(config, FaultRates(), "none")}
    for fault in SEEN_BY:
        rate = max(getattr(bad, fault), 0.06 if fault in ("stuck", "drifting") else 0)  # of eighty sensors, some
        found[fault] = failing(config, FaultRates(**{fault: rate}), fault)
    checks = sorted(set(SEEN_BY.values()))
    table = pl.DataFrame(
        [{"fault": fault} | {c: "x" if c in seen else "" for c in checks} for fault, seen in found.items()]
    )
    with (
        capsys.disabled(),
        pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True),
    ):
        print(f"\n{table}")
    assert found["none"] == set()
    for fault, check in SEEN_BY.items():
        assert check in found[fault], fault


def test_what_the_simulators_do_by_default_is_a_good_day(config: Settings) -> None:
    assert failing(config, FaultRates.scaled(DEFAULT_FAULTS), "default") == set()


def test_a_sensor_nobody_announced_is_unknown(config: Settings) -> None:
    simulate(config.lake, FaultRates(), steps=20, announced=False)
    stream(config.lake, DEVICES, [fleet(FaultRates(), 3)[5].announcement(BEGIN)], BEGIN)
    found, judged = assess(SENSORS, config.lake, DAY, None)
    assert found["unknown_share"][0] == pytest.approx(79 / 80)
    assert {one.name for one in judged if not one.passed} == {"unknown"}


def test_scores_are_kept_by_day_and_shown_with_docs(config: Settings) -> None:
    simulate(config.lake, FaultRates.scaled(0.5))
    docs = config.home / "docs"
    for _ in range(2):
        found, _ = assess(SENSORS, config.lake, DAY, docs)
    kept = read_table(config.lake / "monitoring/quality", {})
    assert kept.select("dataset", "day").rows() == [("sensors", DAY)], "a day once, however often it is assessed"
    score = found["score"][0]
    assert 0.8 < score < 1
    assert latest_scores(config.lake) == {"quality.sensors": score}
    assert "sensors rows" in (docs / "index.html").read_text()


def test_a_drift_is_seen_in_the_first_hour() -> None:
    """Twenty sensors, a reading each twenty seconds for forty minutes; one walks away by eighty times its noise."""
    chance, readings = np.random.default_rng(0), []
    for number in range(20):
        for step in range(120):
            at = BEGIN + timedelta(seconds=20 * step + number)
            walk = 0.2 * step if number == 7 else 0.0
            readings.append((at, f"downtown_noise_{number}", "noise", 60 + walk + chance.normal(0, 0.3), at, BEGIN))
    columns = ["timestamp", "sensor_id", "type", "value", "_arrived", "_watermark"]
    rows = pl.DataFrame(readings, columns, orient="row").sort("timestamp")
    found = measures(SENSORS, summarise(SENSORS, rows.lazy(), {}), pl.LazyFrame(schema=QUARANTINE))
    assert found.select("drifting_share", "stuck_share", "missing_share").row(0) == (1 / 20, 0, 0)


def test_an_empty_day_is_told_and_scored(config: Settings) -> None:
    found, judged = assess(SENSORS, config.lake, DAY, None)
    assert [one.name for one in judged if not one.passed] == ["not_empty"]
    assert found["rows"][0] == 0


def test_a_table_of_broken_rows_fails_row_by_row_expectations(config: Settings) -> None:
    simulate(config.lake, FaultRates(), steps=5)
    path = str(config.lake / "bronze" / "sensors")
    broken = pl.read_delta(path).head(3).with_columns(value=pl.lit(-999.0), _offset=pl.lit(10_000, dtype=pl.Int64))
    broken.write_delta(path, mode="append")
    _, judged = assess(SENSORS, config.lake, DAY, None)
    (rows,) = [one for one in judged if one.name == "rows_valid"]
    assert not rows.passed
    assert {"coordinates_once", "traffic_in_range"} <= set(rows.detail["failed"])


def test_great_expectations_and_polars_say_the_same_of_each_expectation(config: Settings) -> None:
    simulate(config.lake, FaultRates(), steps=5)
    good = pl.read_delta(str(config.lake / "bronze" / "sensors"))
    broken = {
        "sensor_id": pl.lit("Nobody!"),
        "value": pl.lit(-999.0),
        "type": pl.lit("smell"),
        "location": pl.lit(None, pl.String),
        "unit": pl.lit("°F"),
        "_offset": pl.lit(10_000, pl.Int64),
    }
    parts = [good.slice(5 * n, 5).with_columns(value.alias(name)) for n, (name, value) in enumerate(broken.items())]
    bad = pl.concat([good.tail(100), *parts])
    worst = pl.DataFrame({"rows": [0]} | {name: [1.0] for name in expectations.LIMITS})
    best = pl.DataFrame({"rows": [9]} | {name: [0.0] for name in expectations.LIMITS})
    for rows, day, all_fail in ((good, best, False), (bad, worst, True), (good.drop("unit"), best, False)):
        of_polars = {one.name: one for one in expectations.judge(SENSORS, rows, day)}
        of_ge = {one.name: one for one in suites.judge(SENSORS, rows, day, config.home / "docs")}
        assert of_polars.keys() == of_ge.keys()
        assert {name: one.passed for name, one in of_polars.items()} == {n: one.passed for n, one in of_ge.items()}
        counts = {
            name: one.detail["unexpected_count"] for name, one in of_ge.items() if "unexpected_count" in one.detail
        }
        assert {name: of_polars[name].detail["unexpected_count"] for name in counts} == counts
        if all_fail:
            failing = {name for name, one in of_polars.items() if not one.passed}
            assert {
                "sensor_id_spelled",
                "type_known",
                "unit_known",
                "location_complete",
                "rule_named_by_place_and_type",
            } <= failing
            assert {"coordinates_once", "traffic_in_range", "not_empty", "stuck", "malformed"} <= failing
        else:
            assert all(one.passed for one in of_polars.values()) == ("unit" in rows.columns)


def test_one_bad_dimension_shows_in_the_score() -> None:
    clean = dict.fromkeys((name for names in DIMENSIONS.values() for name in names), 0.0)
    worse = clean | {"duplicate_share": 0.5}
    assert scores(pl.DataFrame([clean]))["score"][0] == 1
    assert scores(pl.DataFrame([worse]))["score"][0] == pytest.approx(0.5 ** (1 / 6), abs=1e-4)


def weeks() -> pl.DataFrame:
    """Four weeks of the hours 8 and 20, by day."""
    found = []
    for number in range(28):
        day = date(2026, 4, 6) + timedelta(days=number)
        for hour, usual in ((8, 1000.0), (20, 300.0)):
            noise = 1 + 0.01 * ((number * 7 + hour) % 5)
            found.append(
                {"day": day, "local_hour": hour, "weekday": day.isoweekday(), "kind": "all", "rows": usual * noise}
            )
    return pl.DataFrame(found)


@pytest.mark.parametrize(("morning", "evening", "seen"), [(1010, 305, []), (400, 305, [8]), (1010, 900, [20])])
def test_a_band_knows_the_hours_of_the_week(morning: float, evening: float, seen: list[int]) -> None:
    day = pl.DataFrame(
        {"day": [DAY] * 2, "local_hour": [8, 20], "weekday": [1, 1], "kind": ["all"] * 2, "rows": [morning, evening]},
        schema_overrides={"rows": pl.Float64},
    )
    assert unusual(day, weeks(), "rows", ["kind"])["local_hour"].to_list() == seen


def test_without_a_past_nothing_is_unusual() -> None:
    few = weeks().head(2)
    assert unusual(few, few, "rows", ["kind"]).is_empty()


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
    monkeypatch.setattr("city_assets.monitoring.quality._SAMPLE", 2_000)
