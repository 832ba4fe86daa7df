"""The benchmark of the remaining life, on a synthetic subset in C-MAPSS's file format with six operating conditions."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import rul
from benchmarks._cmapss import CAP, COLUMNS, TEST_BEGIN, TURBOFAN, load_engines
from city.models.examples import label_rows
from city.models.labels import LABEL

ALTITUDES = (0, 10, 20, 25, 35, 42)
ENGINES = 16


def write_subset(folder: Path, name: str, conditions: int = 6) -> None:
    """Engines whose signals depend on the condition, ten times as much as on the wear, which grows to the end."""
    chance = np.random.default_rng(5)
    train, test, left = [], [], []
    for engine in range(1, 2 * ENGINES + 1):
        life, begins = chance.integers(140, 240), chance.uniform(0, 0.2)
        rows = []
        for cycle in range(1, life + 1):
            altitude = ALTITUDES[chance.integers(conditions)]
            wear = begins + np.exp(5 * (cycle / life - 1))
            row = dict.fromkeys(COLUMNS, 0.0) | {"engine": (engine - 1) % ENGINES + 1, "cycle": cycle}
            row |= {"altitude": altitude + chance.uniform(-0.005, 0.005), "mach": 0.02 * altitude, "throttle": 100.0}
            for number, sensor in enumerate(("t24", "t30", "t50", "ps30", "phi", "w31", "w32")):
                sign = -1 if number % 2 else 1
                row[sensor] = 600 + 10 * altitude + sign * 3 * wear + chance.normal(0, 0.5)
            rows.append(list(row.values()))
        if engine <= ENGINES:
            train += rows
        else:
            rest = int(chance.integers(5, 120))
            test += rows[: life - rest]
            left.append(rest)
    np.savetxt(folder / f"train_{name}.txt", train, "%.4f")
    np.savetxt(folder / f"test_{name}.txt", test, "%.4f")
    np.savetxt(folder / f"RUL_{name}.txt", left, "%d")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cmapss")
    write_subset(path, "FD002")
    return path


def test_the_life_of_engines_in_six_conditions_is_predicted(folder: Path) -> None:
    result = rul.run(lambda line: None, folder, "FD002")
    left = np.minimum(np.loadtxt(folder / "RUL_FD002.txt"), CAP)
    assert (result["subset"], result["engines"], result["conditions"]) == ("FD002", ENGINES, 6)
    assert result["rmse"] < 0.6 * left.std()
    assert result["rmse_uncapped"] >= result["rmse"]
    assert result["coverage_90"] >= 0.7
    assert result["interval_mean_width"] < CAP
    assert result["published_rmse"] == rul.PUBLISHED["FD002"]


def test_the_split_by_time_is_the_protocols(folder: Path) -> None:
    engines = load_engines(folder, "FD002", lambda line: None)
    labelled = label_rows(rul.MODEL, engines.features, engines.log)
    train = labelled.filter(pl.col("timestamp") < TEST_BEGIN)
    assert train["machine_id"].str.starts_with("train_").all()
    assert train.height == engines.features.filter(pl.col("machine_id").str.starts_with("train_")).height
    assert train["_known"].max() < TEST_BEGIN  # type: ignore[operator]
    last = train.sort("timestamp").group_by("machine_id").last()
    assert last[LABEL].to_list() == pytest.approx([0.0] * ENGINES, abs=1e-6)
    first = train.sort("timestamp").group_by("machine_id").first()
    assert first[LABEL].to_list() == [1.0] * ENGINES
    test = label_rows(rul.MODEL, engines.features, engines.log).filter(pl.col("timestamp") >= TEST_BEGIN)
    assert test["machine_id"].str.starts_with("test_").all()


def test_what_is_normal_depends_on_the_condition(folder: Path) -> None:
    """Altitudes change a signal ten times as much as wear; none of that is left in the features."""
    engines = load_engines(folder, "FD002", lambda line: None)
    young = engines.features.filter(pl.col("age") * CAP <= 60, pl.col("age") * CAP > 5)
    assert young["t24_newest"].is_between(-0.5, 1.5).all()
    assert engines.features["altitude_newest"].null_count() == engines.features.height
    assert engines.features["mach_newest"].null_count() == engines.features.height


def test_missing_and_wrong_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"train_FD004.txt is not in {folder}"):
        rul.run(lambda line: None, folder, "FD004")
    write_subset(tmp_path, "FD003", conditions=1)
    (tmp_path / "RUL_FD003.txt").write_text("5\n")
    with pytest.raises(ValueError, match=f"RUL_FD003.txt has 1 lives, but test_FD003.txt has {ENGINES} engines"):
        load_engines(tmp_path, "FD003", lambda line: None)
    (tmp_path / "train_FD003.txt").write_text("1 2 3\n")
    with pytest.raises(ValueError, match="train_FD003.txt has 3 columns; wanted 26: engine, cycle"):
        load_engines(tmp_path, "FD003", lambda line: None)


def test_late_costs_more_than_early() -> None:
    late, early = (
        rul.nasa_score(np.array([110.0]), np.array([100.0])),
        rul.nasa_score(np.array([90.0]), np.array([100.0])),
    )
    assert late > early > 0


def test_no_engine_lives_longer_than_the_longest_window() -> None:
    assert TURBOFAN.look_back == 600
