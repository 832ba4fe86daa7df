"""The average of trees and networks: it takes missing values, and serves as it was fitted."""

from dataclasses import replace

import numpy as np
import pytest

from city.models.blend import trees_and_networks
from city.models.boosting import defaults
from city.models.exported import Exported, export
from city_assets.equipment.models import LIFE

MODEL = replace(LIFE, inputs=("a", "b", "c", "d"))
PARAMETERS = {**defaults(7, 20), "alpha": 0.1, "epochs": 20}


def rows(seed: int, count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Three inputs of which a tenth is missing, one that mostly is, and an outcome that depends on two of them."""
    chance = np.random.default_rng(seed)
    x = chance.normal(size=(count, 4)).astype(np.float32)
    y = 0.5 + 0.2 * x[:, 0] + 0.1 * (x[:, 1] > 0)
    x[chance.random(x.shape) < 0.1] = np.nan
    x[chance.random(count) < 0.95, 3] = np.nan
    return x, y


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_exported_average_predicts_as_the_fitted_one_with_missing_values() -> None:
    x, y = rows(0)
    fitted = trees_and_networks(PARAMETERS).fit(x, y)
    unseen, truth = rows(1)
    predicted = Exported(MODEL, export(MODEL, fitted, unseen)).predict(unseen)
    np.testing.assert_allclose(predicted, fitted.predict(unseen), atol=1e-3)
    complete = ~np.isnan(unseen[:, :2]).any(1)
    assert np.abs(predicted - truth)[complete].mean() < 0.5 * np.abs(truth - np.median(y))[complete].mean()


def test_the_search_draws_what_the_estimator_takes() -> None:
    import optuna

    assert LIFE.space is not None
    trial = optuna.trial.FixedTrial(dict(LIFE.defaults))
    assert dict(LIFE.space(trial)) == dict(LIFE.defaults)
