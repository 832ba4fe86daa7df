"""A random forest or boosted trees: both are tried, both take missing values, and both serve as ONNX."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from city.arrays import Labels
from city.models.exported import Exported, export, predict_by_estimator
from city.models.forests import DEFAULTS, forest_or_boosted_trees, space
from city.models.model import Model, Parameters
from city.models.search import search
from city_assets.traffic.models import CONGESTION

BOOSTED: Parameters = {"estimator": "boosted trees", "max_iter": 30}


@pytest.fixture
def model() -> Model:
    return replace(CONGESTION, inputs=("speed_mean", "speed_std", "vehicle_count"), space=space, defaults=DEFAULTS)


def examples(count: int = 600) -> tuple[NDArray[np.float32], Labels]:
    """Rows of which a fifth lack the second input, which decides the third class alone."""
    chance = np.random.default_rng(0)
    x = chance.uniform(0, 50, (count, 3)).astype(np.float32)
    x[chance.random(count) < 0.2, 1] = np.nan
    y = np.where(np.isnan(x[:, 1]), 2, (x[:, 0] > 22).astype(int))
    return x, y


@pytest.mark.parametrize("parameters", [DEFAULTS, BOOSTED])
def test_both_learn_that_a_value_is_missing_and_serve_as_they_were_fitted(model: Model, parameters: Parameters) -> None:
    x, y = examples()
    estimator = forest_or_boosted_trees(parameters).fit(x, y)
    served = Exported(model, export(model, estimator, x)).predict(x)
    assert np.abs(served - predict_by_estimator(model, estimator, x)).max() < 1e-3
    assert (served.argmax(1) == y).mean() > 0.97


def test_the_search_tries_both_and_takes_the_better_one(model: Model) -> None:
    tried: list[Parameters] = []

    def loss(parameters: Parameters) -> float:
        tried.append(parameters)
        return 0.5 if parameters["estimator"] == "random forest" else 0.4

    best = search(model, loss, None, "study")
    assert tried[0] == DEFAULTS
    assert {str(parameters["estimator"]) for parameters in tried} == {"random forest", "boosted trees"}
    assert best in tried
    assert best["estimator"] == "boosted trees"
    assert forest_or_boosted_trees(best).__class__.__name__ == "HistGradientBoostingClassifier"
