"""Models of speed and congestion some minutes ahead: by the positions of vehicles, and by taxi trips."""

from datetime import timedelta
from functools import lru_cache

import polars as pl

from city.models import forests
from city.models.boosting import boosted_trees, defaults, mean_and_median_trees, space
from city.models.labels import FutureValue
from city.models.model import Model
from city.tables.calendar import SLOT_SECONDS
from city_assets.traffic.cell_features import LAGS
from city_assets.traffic.contract import CELL_WINDOW
from city_assets.traffic.transforms import levels

_SPACE, _DEFAULTS = space((7, 63), (10, 200)), defaults(31, 40)
_SPEED_DEFAULTS = {
    "learning_rate": 0.1,
    "max_iter": 200,
    "max_leaf_nodes": 63,
    "min_samples_leaf": 100,
    "l2_regularization": 5.0,
}
_SPEEDS = ("speed_mean", "speed_std", *(f"speed_lag_{lag}" for lag in LAGS), "speed_recent")
_PAST = ("speed_past_mean", "speed_past_std", "speed_past_min", "speed_past_max")
_AROUND = (
    "speed_neighbours",
    "speed_slowest_neighbour",
    "speed_fastest_neighbour",
    "neighbours_change",
    "neighbours_largest_drop",
    "speed_leaders",
    "leaders_change",
    "speed_city",
    "speed_city_before",
)
_USUAL = ("speed_usual", "speed_usual_later", "speed_level", "speed_level_std")
_RAIN = ("precipitation", "precipitation_before")
# Not `positions`: how often a vehicle reports says nothing about the traffic.
_INPUTS = (
    *_SPEEDS,
    *_PAST,
    *_AROUND,
    *_USUAL,
    *_RAIN,
    "vehicle_count",
    "local_hour",
    "weekday",
    "holiday",
    "rush_hour",
)


CONGESTION = Model(
    name="traffic_congestion",
    description="How congested a cell will be in a quarter of an hour: low, medium or high.",
    features="traffic_features",
    inputs=_INPUTS,
    label=FutureValue(
        column="speed_mean",
        after=timedelta(minutes=15),
        tolerance=CELL_WINDOW.every,
        classes=("low", "medium", "high"),
        transform=lambda speed: levels(speed, pl),
    ),
    estimator=boosted_trees("classification"),
    space=_SPACE,
    defaults=_DEFAULTS,
    segments=("rush_hour",),
)


MINUTES_AHEAD = (5, 10, 15)


@lru_cache
def speed_model(minutes: int) -> Model:
    """Returns the model of a cell's mean speed in so many minutes."""
    return Model(
        name=f"traffic_speed_{minutes}",
        description=f"The mean speed in a cell in {minutes} minutes.",
        features="traffic_features",
        inputs=_INPUTS,
        label=FutureValue(
            column="speed_mean", after=timedelta(minutes=minutes), tolerance=CELL_WINDOW.every, unit="km/h"
        ),
        estimator=mean_and_median_trees,
        change_of="speed_mean",
        space=_SPACE,
        defaults=_SPEED_DEFAULTS,
        segments=("rush_hour",),
    )


_TRIP_SPEEDS = ("speed_mean", "speed_std", *(f"speed_lag_{lag}" for lag in range(1, 4)), "speed_recent")
_TRIP_INPUTS = (
    *("local_hour", "weekday", "holiday", "rush_hour", "latitude", "longitude", "trips", *_TRIP_SPEEDS),
    *("trips_recent", "speed_neighbours", "speed_day_before", "usual_speed", "usual_trips"),
)

TRIP_CONGESTION = Model(
    name="trip_congestion",
    description="How congested a cell will be in the next quarter of an hour, by its taxi trips: low, medium or high.",
    features="trip_features",
    inputs=_TRIP_INPUTS,
    label=FutureValue(
        column="level_speed",
        after=timedelta(seconds=SLOT_SECONDS),
        tolerance=timedelta(minutes=1),
        classes=("low", "medium", "high"),
        transform=lambda speed: levels(speed, pl),
    ),
    estimator=forests.forest_or_boosted_trees,
    space=forests.space,
    defaults=forests.DEFAULTS,
    segments=("rush_hour",),
)

MODELS = (CONGESTION, TRIP_CONGESTION, *map(speed_model, MINUTES_AHEAD))
