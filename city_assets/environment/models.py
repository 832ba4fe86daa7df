"""The model of the air quality one hour ahead."""

from datetime import timedelta

from city.models.boosting import boosted_trees, defaults, space
from city.models.labels import FutureValue
from city.models.model import Model

_SENSED = ("air_quality", "noise", "temperature", "humidity", "precipitation", "wind", "traffic")

AIR_QUALITY = Model(
    name="air_quality_60",
    description="The air quality index at a place in an hour.",
    features="weather_features",
    inputs=(
        *(f"{name}_mean" for name in _SENSED),
        *(f"{name}_lag_1" for name in _SENSED),
        *("local_hour", "weekday", "holiday", "rush_hour"),
    ),
    label=FutureValue(column="air_quality_mean", after=timedelta(hours=1), tolerance=timedelta(minutes=2), unit="AQI"),
    estimator=boosted_trees("regression"),
    change_of="air_quality_mean",
    space=space((5, 31), (5, 100)),
    defaults=defaults(15, 20),
    segments=("rush_hour",),
)

MODELS = (AIR_QUALITY,)
