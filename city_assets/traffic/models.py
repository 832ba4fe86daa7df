"""Models of speed and congestion some minutes ahead: by the positions of vehicles, and by taxi trips."""

from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from city.arrays import Floats
from city.models import forests
from city.models.boosting import boosted_trees, defaults, space
from city.models.estimator import Estimator
from city.models.labels import FutureValue
from city.models.model import Model, Parameters
from city.tables.calendar import SLOT_SECONDS
from city_assets.traffic.transforms import WINDOW_SECONDS, levels

LAGS = 12
"""The number of past steps that the features of a network use."""
_LEADERS, _ALIKE = 6, 4
_AROUND_LAGS, _CITY_LAGS = (0, 1, 2, 5), (0, 3)
_SMOOTHING = 3


def speed_ahead(seed: int = 0) -> Estimator:
    """Builds an estimator of the change of a speed: the average of boosted trees for the mean and for the median.

    The mean has the least squared error and the median the least absolute error. Their average is close to the best by
    both measures.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor, VotingRegressor

    shared: Parameters = {
        "learning_rate": 0.06,
        "min_samples_leaf": 100,
        "l2_regularization": 5,
        "max_features": 0.4,
        "random_state": seed,
    }
    mean = HistGradientBoostingRegressor(max_iter=200, max_leaf_nodes=31, **shared)
    median = HistGradientBoostingRegressor(loss="absolute_error", max_iter=250, max_leaf_nodes=63, **shared)
    return VotingRegressor([("mean", mean), ("median", median)])


@dataclass(frozen=True)
class Network:
    """The statistics of a network of detectors over its training period, which `features` needs."""

    weights: Floats
    """(n, n): the weights of each detector's neighbours on the road graph, which sum to one."""
    leaders: NDArray[np.intp]
    """(n, 6): the detectors whose changes precede each detector's own."""
    alike: NDArray[np.intp]
    """(n, 4): the detectors whose speeds correlate most with each detector's own."""
    daily: Floats
    """(steps of a day, n): the mean speed at each time of day, smoothed over seven steps."""
    levels: Floats
    """(5, n): the mean, the standard deviation, and the quantiles 5, 50 and 95 %."""

    @classmethod
    def learn(cls, speeds: Floats, graph: Floats, day: int = 288) -> "Network":
        """Computes the statistics of speeds (t, n) and a weighted road graph (n, n).

        `day` is the number of steps of a day. Raises ValueError for less than a day of speeds.
        """
        if len(speeds) < day:
            raise ValueError(f"{len(speeds)} steps are too few: give at least a day, which has {day}")
        weights = graph * (1 - np.eye(len(graph)))
        weights = weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)
        change = _standardise(speeds[3:] - speeds[:-3])
        lead, level = (
            change[3:].T @ change[:-3] / len(change),
            _standardise(speeds).T @ _standardise(speeds) / len(speeds),
        )
        for matrix in (lead, level):
            np.fill_diagonal(matrix, -np.inf)
        clock = np.stack([speeds[step::day].mean(0) for step in range(day)])
        padded = np.concatenate([clock[-_SMOOTHING:], clock, clock[:_SMOOTHING]])
        daily = np.lib.stride_tricks.sliding_window_view(padded, 2 * _SMOOTHING + 1, axis=0).mean(-1)
        levels = np.stack([speeds.mean(0), speeds.std(0), *np.quantile(speeds, [0.05, 0.5, 0.95], axis=0)])
        first = lambda matrix, count: np.argsort(-matrix, axis=1)[:, :count]  # noqa: E731
        return cls(weights, first(lead, _LEADERS), first(level, _ALIKE), daily, levels)

    def features(self, speeds: Floats, at: NDArray[np.intp]) -> Floats:
        """Computes the features (len(at), n, f) at the steps `at` of speeds (t, n), as float32.

        The features of a step use its last 12 speeds.
        """
        count, day = speeds.shape[1], len(self.daily)
        lag = [speeds[at - k] for k in range(LAGS)]
        around = speeds @ self.weights.T
        city = speeds.mean(1)
        wide = lambda values: np.repeat(np.asarray(values, float)[:, None], count, 1)  # noqa: E731
        parts = [*lag, *(around[at - k] for k in _AROUND_LAGS)]
        for j in range(_LEADERS):
            leader = self.leaders[:, j]
            parts += [lag[0][:, leader], lag[2][:, leader], lag[0][:, leader] - lag[3][:, leader]]
        parts += [lag[0][:, self.alike[:, j]] for j in range(_ALIKE)]
        parts += [wide(city[at - k]) for k in _CITY_LAGS]
        past = np.stack(lag)
        parts += [past.mean(0), past.std(0), past.min(0), past.max(0), past[:3].std(0), past[:6].mean(0)]
        parts += [wide(at % day), wide(at // day % 7)]
        parts += [self.daily[(at + ahead) % day] for ahead in range(4)]
        parts += [np.repeat(level[None], len(at), 0) for level in self.levels]
        return np.stack(parts, -1).astype(np.float32)


def _standardise(values: Floats) -> Floats:
    standard: Floats = (values - values.mean(0)) / np.maximum(values.std(0), 1e-9)
    return standard


_SPACE, _DEFAULTS = space((7, 63), (10, 200)), defaults(31, 40)
_SPEEDS = ("speed_mean", "speed_std", *(f"speed_lag_{lag}" for lag in range(1, 4)), "speed_recent", "speed_neighbours")
_AROUND = ("speed_slowest_neighbour",)
_RAIN = ("precipitation", "precipitation_before")
# Not `positions`: how often a vehicle reports says nothing about the traffic.
_INPUTS = (*_SPEEDS, *_AROUND, *_RAIN, "vehicle_count", "local_hour", "weekday", "holiday", "rush_hour")
_WINDOW = timedelta(seconds=WINDOW_SECONDS)


CONGESTION = Model(
    name="traffic_congestion",
    description="How congested a cell will be in a quarter of an hour: low, medium or high.",
    features="traffic_features",
    inputs=_INPUTS,
    label=FutureValue(
        column="speed_mean",
        after=timedelta(minutes=15),
        tolerance=_WINDOW,
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
        label=FutureValue(column="speed_mean", after=timedelta(minutes=minutes), tolerance=_WINDOW, unit="km/h"),
        estimator=boosted_trees("regression"),
        change_of="speed_mean",
        space=_SPACE,
        defaults=_DEFAULTS,
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
