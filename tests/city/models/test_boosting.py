"""The average of trees for the mean and for the median: what it predicts, and that it can be exported."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from city.models.boosting import boosted_trees
from city.models.fitting import fit_exported
from city.models.mean_and_median import ALL_TREES_ROWS, WEIGHTS, MeanAndMedianTrees, trees_for
from city.models.model import Model, Parameters
from city_assets.traffic.models import speed_model

SMALL: Parameters = {"max_iter": 60, "max_leaf_nodes": 7, "min_samples_leaf": 20}


def rows(count: int = 3_000) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Changes of which one in five is large, so that their mean is above their median."""
    chance = np.random.default_rng(0)
    x = chance.uniform(10, 40, (count, 3)).astype(np.float32)
    return x, x[:, 0] + np.where(chance.random(count) < 0.2, 10.0, 0.0) + chance.normal(0, 0.1, count)


def model() -> Model:
    return replace(speed_model(15), inputs=("speed_mean", "speed_lag_1", "speed_lag_2"), defaults=SMALL)


@pytest.mark.parametrize("constant", [False, True])
def test_the_exported_average_is_between_the_median_and_the_mean(constant: bool) -> None:
    x, y = rows()
    if constant:
        x[:, 2] = 1
    both = fit_exported(model(), SMALL, x, y).predict(x) - x[:, 0]
    median = fit_exported(replace(model(), estimator=boosted_trees("regression")), SMALL, x, y).predict(x) - x[:, 0]
    assert abs(median.mean()) < 0.3
    share = WEIGHTS[0] / sum(WEIGHTS)
    assert both.mean() == pytest.approx(share * 2.0 + (1 - share) * median.mean(), abs=0.15)


def test_missing_inputs_are_exported_as_they_were_learned() -> None:
    x, y = rows()
    x[::3, 1] = np.nan
    assert np.isfinite(fit_exported(model(), SMALL, x, y).predict(x)).all()


def test_few_rows_get_fewer_trees() -> None:
    assert trees_for(200, 10) == trees_for(200, ALL_TREES_ROWS // 4) == 70
    assert trees_for(200, ALL_TREES_ROWS // 2) == 100
    assert trees_for(200, ALL_TREES_ROWS) == trees_for(200, 10 * ALL_TREES_ROWS) == 200
    assert trees_for(1, 10) == 1


def test_trees_for_the_mean_have_half_of_the_leaves_and_every_tree_is_grown_at_each_fit() -> None:
    fitted = MeanAndMedianTrees(SMALL)
    for _ in range(2):
        fitted.fit(*rows(12_000))
    mean, median = fitted.estimators_
    assert (mean.max_leaf_nodes, median.max_leaf_nodes) == (3, 7)
    assert (mean.loss, median.loss) == ("squared_error", "absolute_error")
    assert mean.n_iter_ == median.n_iter_ == trees_for(60, 12_000)
