"""A random forest or histogram gradient boosting, which the search chooses between.

Both accept NaN and can be exported to ONNX.
"""

from typing import TYPE_CHECKING, Any

from city.models import boosting
from city.models.estimator import Classifier, Estimator
from city.models.model import Parameters

if TYPE_CHECKING:
    from optuna import Trial

_FOREST, _BOOSTING = "random forest", "boosted trees"
_MISSING = -1.0
"""The value of a missing input in a forest, below every value of its inputs.

skl2onnx sends NaN to another side of a forest's splits than scikit-learn.
"""
_TREES = 200


def forest_or_boosted_trees(parameters: Parameters) -> Estimator:
    """Creates the classifier that the parameter `estimator` names, from the other parameters.

    A forest splits off missing inputs as a value of their own, so its inputs must not be below zero where they may be
    missing.
    """
    own = {name: value for name, value in parameters.items() if name != "estimator"}
    if parameters["estimator"] == _BOOSTING:
        return boosting.boosted_trees("classification")(own)
    return random_forest(_TREES, **own)


def random_forest(trees: int, **parameters: Any) -> Classifier:
    """Creates a random forest of so many trees, which takes a missing input for _MISSING."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    filled = SimpleImputer(strategy="constant", fill_value=_MISSING)
    forest: Classifier = make_pipeline(filled, RandomForestClassifier(n_estimators=trees, random_state=0, **parameters))
    return forest


def space(trial: "Trial") -> Parameters:
    """Draws an estimator and its parameters for an Optuna trial."""
    if trial.suggest_categorical("estimator", [_FOREST, _BOOSTING]) == _BOOSTING:
        return {"estimator": _BOOSTING, **_BOOSTING_SPACE(trial)}
    return {
        "estimator": _FOREST,
        "max_depth": trial.suggest_int("max_depth", 4, 16),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", *_LEAF_ROWS, log=True),
        "max_features": trial.suggest_float("max_features", 0.2, 0.8),
    }


_LEAF_ROWS = (5, 100)
_BOOSTING_SPACE = boosting.space((7, 63), _LEAF_ROWS)
DEFAULTS: Parameters = {"estimator": _FOREST, "max_depth": 10, "min_samples_leaf": 10, "max_features": 0.4}
"""The parameters that the search tries first."""
