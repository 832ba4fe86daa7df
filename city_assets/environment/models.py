"""Air quality an hour ahead."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from city.models.model import Label, Model, Parameters

if TYPE_CHECKING:
    from optuna import Trial

_SENSED = ("air_quality", "noise", "temperature", "humidity")
_DEFAULTS: Mapping[str, Any] = {
    "learning_rate": 0.06,
    "max_iter": 100,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 20,
    "l2_regularization": 1.0,
}


def _estimator(parameters: Parameters) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(loss="absolute_error", random_state=0, **parameters)


def _space(trial: "Trial") -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.2, log=True),
        "max_iter": trial.suggest_int("max_iter", 40, 200, step=20),
        "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 5, 31, log=True),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 5, 100, log=True),
        "l2_regularization": trial.suggest_float("l2_regularization", 0.01, 10, log=True),
    }


AIR_QUALITY = Model(
    name="air_quality_60",
    means="The air quality index at a place in an hour.",
    features="weather_features",
    inputs=(
        *(f"{name}_mean" for name in _SENSED),
        *(f"{name}_lag_1" for name in _SENSED),
        *("local_hour", "weekday", "holiday", "rush_hour"),
    ),
    label=Label("air_quality_mean", timedelta(hours=1), timedelta(minutes=2), unit="AQI"),
    estimator=_estimator,
    space=_space,
    defaults=_DEFAULTS,
    segments=("rush_hour",),
)

MODELS = (AIR_QUALITY,)
