"""The benchmark of anomalies, on a synthetic run in SKAB's file format and on the real ones."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import _injected, anomaly
from benchmarks._rig import COLUMNS, RIG, load_run
from city.models.wandering import WanderingRegion
from city.settings import settings

SKAB = settings().data / "skab"
needs_skab = pytest.mark.skipif(not SKAB.exists(), reason="needs the real SKAB runs in CITY_DATA_DIR")
LEVELS = np.array([0.03, 0.04, 1.0, 0.05, 70.0, 25.0, 230.0, 32.0])
BEGIN, FAULTY = datetime(2020, 3, 9, 10, 0, 0), slice(600, 900)


def write_run(file: Path, fault: float = 3.0) -> None:
    """A run whose temperature wanders, whose voltage is constant, and whose flow falls in the middle."""
    chance = np.random.default_rng(4)
    count = 1_100
    signals = LEVELS * (1 + 0.01 * chance.normal(size=(count, len(LEVELS))))
    signals[:, 4] += np.cumsum(chance.normal(0, 0.1, count))
    signals[:, 6] = LEVELS[6]
    signals[FAULTY, 7] -= fault
    is_faulty = np.zeros(count)
    is_faulty[FAULTY] = 1
    times = pl.Series([BEGIN + timedelta(seconds=row) for row in range(count)]).dt.to_string("%Y-%m-%d %H:%M:%S")
    frame = pl.DataFrame(signals, schema=list(COLUMNS.values())).with_columns(anomaly=is_faulty, changepoint=0.0)
    file.parent.mkdir(parents=True, exist_ok=True)
    frame.insert_column(0, times.alias("datetime")).write_csv(file, separator=";")


def test_a_fault_in_a_file_is_found_by_the_served_model(tmp_path: Path) -> None:
    """Also where a signal of the first rows is constant."""
    write_run(tmp_path / "other" / "1.csv")
    result = anomaly.run(lambda line: None, tmp_path)
    assert (result["runs"], result["published_f1"]) == (1, anomaly.PUBLISHED)
    assert result["f1"] > 0.9
    assert result["far"] < 0.1
    write_run(tmp_path / "other" / "1.csv", fault=0.0)
    assert anomaly.run(lambda line: None, tmp_path)["f1"] < 0.3


def test_the_features_are_trailing_means_and_spreads_of_the_files_rows(tmp_path: Path) -> None:
    write_run(tmp_path / "1.csv")
    raw, rows = pl.read_csv(tmp_path / "1.csv", separator=";"), load_run(tmp_path / "1.csv")
    window = RIG.window("now").readings
    flow = raw[COLUMNS["flow"]].to_numpy()[700 - window + 1 : 701]
    assert rows["flow_now"][700] == pytest.approx(flow.mean())
    assert rows["flow_spread"][700] == pytest.approx(flow.std(ddof=1))
    assert rows["is_anomaly"].to_list() == (raw["anomaly"] > 0).to_list()


def test_what_cannot_be_judged_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        anomaly.run(lambda line: None, tmp_path)
    write_run(tmp_path / "1.csv")
    text = (tmp_path / "1.csv").read_text().splitlines()
    text[5] = text[5].replace(";230.0;", ";9999;")
    (tmp_path / "1.csv").write_text("\n".join(text))
    with pytest.raises(ValueError, match="rig_readings rejects 1 of 1100 events.*voltage: outside -1000 to 1000 V"):
        anomaly.run(lambda line: None, tmp_path)


def test_rates() -> None:
    truth, alarms = np.array([True, True, False, False, False]), np.array([True, False, True, False, False])
    assert anomaly.rates(truth, alarms) == {"f1": 0.5, "far": 0.3333, "mar": 0.5}


@pytest.mark.parametrize("kind", _injected.KINDS)
def test_an_injected_fault_is_where_it_is_said_to_be(kind: str) -> None:
    chance = np.random.default_rng(0)
    signals = chance.normal(5, 1, (_injected.NORMAL_ROWS + _injected.SCORED_ROWS, len(LEVELS)))
    changed, is_faulty = _injected.with_fault(signals, kind, 8.0, chance)
    first, last = np.flatnonzero(is_faulty)[[0, -1]]
    difference = np.abs(changed - signals).max(1)
    assert is_faulty[first : last + 1].all()
    assert (difference[:first] == 0).all()
    assert first > _injected.NORMAL_ROWS
    middle = slice((first + last) // 2, last)
    assert np.median(difference[middle]) > 4 * np.median(difference[last + 100 :])
    if kind == "variance":
        assert not np.isclose(changed[middle].std(0), signals[middle].std(0), rtol=0.3).all()


@needs_skab
def test_anomalies_are_found_better_than_the_published_detectors_do() -> None:
    result = anomaly.run(lambda line: None, SKAB)
    assert result["f1"] > max(result["published_f1"].values())
    assert result["far"] <= 0.25


@needs_skab
def test_the_borders_are_those_of_the_rule_on_anomaly_free_rows() -> None:
    """A quarter of the scored rows is beyond each of them. Nothing else decides them."""
    runs = list(_injected.normal_runs(anomaly.MODEL, SKAB / "anomaly-free.csv", 60))
    region = anomaly.MODEL.estimator(anomaly.MODEL.defaults)
    assert isinstance(region, WanderingRegion)
    threshold, limit = _injected.borders(anomaly.MODEL, runs)
    assert region.threshold == pytest.approx(threshold, rel=0.1)
    assert region.limit == pytest.approx(limit, rel=0.1)
