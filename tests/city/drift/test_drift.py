"""What has changed is found by the measure that is for it, and what has not is left alone."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from scipy import stats

from city.drift import Monitor, measure_loss_growth
from city.drift.measures import NUMERIC, chi_square
from city.drift.monitor import COMPARISON

CHANCE = np.random.default_rng(1)
ROWS = 3000


def frame(**changed: np.ndarray) -> pl.DataFrame:
    x, noise = CHANCE.normal(size=(2, ROWS))
    kind = CHANCE.choice(["car", "bus", "bike"], ROWS, p=[0.7, 0.2, 0.1])
    return pl.DataFrame({"x": x, "y": 0.8 * x + 0.6 * noise, "kind": kind} | changed)


def drifted(current: pl.DataFrame) -> set[tuple[str, str]]:
    rows = Monitor(frame()).compare(current).filter("drifted")
    return set(rows.select("measure", "feature").iter_rows())


def test_the_same_again_is_no_drift() -> None:
    assert drifted(frame()) == set()


def test_a_moved_feature_is_found_by_every_numeric_measure() -> None:
    assert drifted(frame(y=CHANCE.normal(0.7, 1, ROWS))) >= {(name, "y") for name in NUMERIC}


def test_a_wider_feature_is_found() -> None:
    assert {("psi", "x"), ("wasserstein", "x")} <= drifted(frame(x=CHANCE.normal(0, 2, ROWS)))


def test_a_relation_that_breaks_is_found_though_each_feature_is_as_it_was() -> None:
    assert drifted(frame(y=CHANCE.normal(size=ROWS))) == {("correlation", "x × y")}


def test_equal_values_are_equal_whatever_the_types_of_the_other_features() -> None:
    x, y, n = CHANCE.choice([0.1, 0.7], ROWS), CHANCE.choice([0.3, 0.9], ROWS), CHANCE.integers(0, 3, ROWS)
    was = pl.DataFrame({"x": x, "y": y, "n": n}, schema={"x": pl.Float32, "y": pl.Float64, "n": pl.Int64})
    now = was.cast({"x": pl.Float64, "y": pl.Float32, "n": pl.Float64}).with_columns(x=pl.Series(x))
    comparison = Monitor(was).compare(now)
    assert comparison.filter(pl.col("effect") > 1e-9).is_empty()


@pytest.mark.parametrize(
    "columns", [{"n": [1, 2, 3]}, {"k": ["a", "b", "b"]}, {"b": [True, False, True], "i": [1, 2, None]}, {}]
)
def test_a_comparison_has_one_schema_whatever_is_compared(columns: dict[str, list[object]]) -> None:
    window = pl.DataFrame(columns) if columns else frame()
    assert Monitor(window).compare(window).schema == pl.Schema(COMPARISON)


def test_categories_are_compared_and_a_new_one_counts() -> None:
    assert drifted(frame(kind=CHANCE.choice(["car", "tram"], ROWS))) == {("chi_square", "kind")}


def test_values_that_go_missing_are_drift_of_their_own() -> None:
    gone = frame().with_columns(x=pl.when(pl.int_range(pl.len()) % 10 == 0).then(None).otherwise("x"))
    assert ("missing", "x") in drifted(gone)
    assert not {("ks", "x"), ("wasserstein", "x")} & drifted(gone)
    assert ("missing", "x") in drifted(frame(x=np.where(np.arange(ROWS) % 10 == 0, np.nan, CHANCE.normal(size=ROWS))))


def test_a_difference_too_small_to_matter_is_none_however_many_rows() -> None:
    was, now = (pl.DataFrame({"x": CHANCE.normal(mean, 1, 60_000)}) for mean in (0.0, 0.05))
    comparison = Monitor(was).compare(now).filter(pl.col("measure") == "ks")
    assert comparison["p_value"][0] < 1e-6
    assert not comparison["drifted"][0]


def test_windows_that_cannot_be_compared_are_named() -> None:
    with pytest.raises(ValueError, match="lacks kind, y"):
        Monitor(frame()).compare(frame().drop("kind", "y"))
    with pytest.raises(ValueError, match="without rows"):
        Monitor(frame()).compare(frame().head(0))


@pytest.mark.parametrize("name", NUMERIC)
def test_constant_empty_and_broken_features_have_an_answer(name: str) -> None:
    constant, broken = np.ones(50), np.full(50, np.nan)
    of = NUMERIC[name]
    assert of(constant, constant).p_value == 1
    assert np.isfinite(of(constant, CHANCE.normal(size=50)).effect)
    assert np.isfinite(of(broken, constant).effect)
    assert np.isfinite(of(constant, broken).effect)


def test_one_category_alone_is_no_drift() -> None:
    assert chi_square(np.array(["a"] * 9), np.array(["a"] * 5)).p_value == 1


def test_errors_that_grow_are_decay_and_those_that_shrink_are_not() -> None:
    few, many = (CHANCE.random(800) < share for share in (0.1, 0.25))
    assert measure_loss_growth(few.astype(float), many.astype(float)).p_value < 1e-6
    assert measure_loss_growth(many.astype(float), few.astype(float)).p_value > 0.99
    assert measure_loss_growth(np.zeros(9), np.zeros(9)).p_value == 1
    known = stats.ttest_ind(many, few, equal_var=False, alternative="greater")
    measurement = measure_loss_growth(few.astype(float), many.astype(float))
    assert (measurement.statistic, measurement.p_value) == pytest.approx((known.statistic, known.pvalue))


def test_asking_whether_a_model_has_decayed_costs_a_long_running_process_little() -> None:
    script = "import sys; from city.drift.losses import measure_loss_growth; import numpy as np; "
    script += "measure_loss_growth(np.arange(9.0), np.arange(9.0)); print('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"
    with pytest.raises(ValueError, match="two losses"):
        measure_loss_growth(np.zeros(1), np.zeros(9))
