"""Histogram gradient boosting, which most models of feature views use.

It accepts NaN and can be exported to ONNX.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from city.models.estimator import Estimator
from city.models.model import Parameters

if TYPE_CHECKING:
    from optuna import Trial


def boosted_trees(kind: Literal["classification", "regression"]) -> Callable[[Parameters], Estimator]:
    """Returns a function that creates the estimator from its parameters. A regression predicts the median."""

    def estimator(parameters: Parameters) -> Estimator:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        if kind == "classification":
            return HistGradientBoostingClassifier(random_state=0, **parameters)
        return HistGradientBoostingRegressor(loss="absolute_error", random_state=0, **parameters)

    return estimator


def mean_and_median_trees(parameters: Parameters) -> Estimator:
    """Creates the average of boosted trees for the mean and for the median, see `city.models.mean_and_median`."""
    from city.models.mean_and_median import MeanAndMedianTrees

    return MeanAndMedianTrees(parameters)


def space(leaves: tuple[int, int], leaf_rows: tuple[int, int]) -> Callable[["Trial"], Parameters]:
    """Returns the search space: a function that draws parameters for an Optuna trial.

    `leaves` are the bounds of a tree's leaves, `leaf_rows` those of a leaf's rows. They depend on the number of rows.
    """

    def draw(trial: "Trial") -> Parameters:
        return {
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.2, log=True),
            "max_iter": trial.suggest_int("max_iter", 40, 200, step=20),
            "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", *leaves, log=True),
            "min_samples_leaf": trial.suggest_int("min_samples_leaf", *leaf_rows, log=True),
            "l2_regularization": trial.suggest_float("l2_regularization", 0.01, 10, log=True),
        }

    return draw


def defaults(leaves: int, leaf_rows: int) -> Parameters:
    """Returns the parameters that the search tries first."""
    return {
        "learning_rate": 0.06,
        "max_iter": 100,
        "max_leaf_nodes": leaves,
        "min_samples_leaf": leaf_rows,
        "l2_regularization": 1.0,
    }
