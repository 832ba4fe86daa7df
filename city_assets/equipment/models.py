"""Remaining useful life, and anomalies of multivariate signals: the fleet's models, and those of the benchmarks."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from city.arrays import Floats
from city.models.anomaly import NormalRegion, combined_index, contributions
from city.models.boosting import boosted, defaults, space
from city.models.labels import Normal, Until
from city.models.model import Model, Stream
from city_assets.equipment.contract import SIGNALS
from city_assets.equipment.transforms import HORIZONS

CAP = 125
"""Cycles. Wear shows in the signals only towards the end; before that the life left cannot be told (Heimes, 2008)."""
WINDOW = 30
_RECENT, _NEWEST, _FIRST = 10, 5, 10


def life_features(signals: Floats) -> Floats:
    """What a machine's signals (t, s) tell at each time from the 30th: (t - 29, 9 s + 1).

    Of each signal: its mean over 30, 10 and 5 cycles, its trend and where that leads, its spread, its exponential
    mean, how far it is from its beginning, and its mean so far; and the age. Raises ValueError for fewer cycles.
    """
    if len(signals) < WINDOW:
        raise ValueError(f"{len(signals)} cycles are too few: the features look back over {WINDOW}")
    windows = np.lib.stride_tricks.sliding_window_view(signals, WINDOW, axis=0)  # (n, s, 30)
    steps = np.arange(WINDOW) - (WINDOW - 1) / 2
    whole, recent, newest = windows.mean(-1), windows[..., -_RECENT:].mean(-1), windows[..., -_NEWEST:].mean(-1)
    slope = (windows - whole[..., None]) @ steps / (steps @ steps)
    ages = np.arange(WINDOW, len(signals) + 1)
    so_far = signals.cumsum(0)[WINDOW - 1 :] / ages[:, None]
    parts = [
        *(whole, recent, newest, slope * WINDOW, windows.std(-1), whole + slope * steps[-1]),
        *(_exponential(signals)[WINDOW - 1 :], recent - signals[:_FIRST].mean(0), so_far, ages[:, None]),
    ]
    return np.column_stack(parts)


def remaining_life(seed: int = 0) -> Any:
    """An estimator of the remaining life: boosted trees and a small network, averaged.

    They miss in different places: over training engines (cross-validated) the two together miss a tenth less than
    either.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor, VotingRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    trees = HistGradientBoostingRegressor(
        max_iter=200,
        learning_rate=0.05,
        max_leaf_nodes=15,
        min_samples_leaf=40,
        l2_regularization=5,
        max_features=0.3,
        random_state=seed,
    )
    network = make_pipeline(
        StandardScaler(), MLPRegressor(hidden_layer_sizes=(64, 32), alpha=1.0, max_iter=40, random_state=seed)
    )
    return VotingRegressor([("trees", trees), ("network", network)])


def nasa_score(predicted: Floats, actual: Floats) -> float:
    """The scoring of the PHM 2008 challenge: late predictions cost more than early ones (Saxena et al., 2008)."""
    late = predicted - actual
    return float(np.where(late < 0, np.expm1(-late / 13), np.expm1(late / 10)).sum())


@dataclass
class AnomalyDetector:
    """Principal components of normal signals, watched as they come.

    The score is the combined index of T² and Q; `threshold` times its border is an anomaly. Signals are smoothed by a
    trailing mean. The centre follows slow change (warming up, wear) while nothing is wrong, and stands still while
    something is.
    """

    smoothing: int = 15
    """Rows that the trailing mean is over."""
    explained: float = 0.99
    """Share of the variance that the components hold."""
    adaption: float = 0.01
    """How much of its distance the centre moves at each normal row."""
    threshold: float = 3.0
    quantile: float = 0.995
    """Of normal data's scores, this is called the largest."""

    _recent: deque[Floats] = field(default_factory=deque, init=False, repr=False)

    def fit(self, signals: Floats) -> "AnomalyDetector":
        """Learns what is normal from rows (n, s) in order of time, which must all be so.

        A constant signal takes no part. Raises ValueError for fewer rows than thrice the signals, or values that are
        not finite.
        """
        signals = np.asarray(signals, float)
        if len(signals) < max(3 * signals.shape[1], self.smoothing + 2):
            raise ValueError(f"{len(signals)} normal rows are too few for {signals.shape[1]} signals")
        if not np.isfinite(signals).all():
            raise ValueError("normal rows must be finite: fill or leave out what is missing")
        smooth = np.array(list(self._smoothed(signals)))
        self._mean, deviation = smooth.mean(0), smooth.std(0)
        self._live = deviation > 1e-12 * np.maximum(1, np.abs(self._mean))
        if not self._live.any():
            raise ValueError("every signal is constant: there is nothing to learn from")
        self._scale = np.where(self._live, deviation, 1.0)
        rows = (smooth - self._mean) / self._scale * self._live
        self._root = combined_index(rows, self.explained, self.quantile).root
        self._centre = np.zeros(signals.shape[1])
        return self

    def watch(self, row: Floats) -> tuple[float, Floats]:
        """The score of the next row (s,), over 1 beyond normal and over `threshold` an anomaly, and what each signal
        contributes to it: shares (s,) that sum to one."""
        away = (self._smooth(row) - self._mean) / self._scale * self._live - self._centre
        score = float(((self._root @ away) ** 2).sum())
        if score <= self.threshold:
            self._centre = self._centre + self.adaption * away
        return score, contributions(self._root, away)

    def scores(self, signals: Floats) -> Floats:
        """The scores (n,) of rows that come after those it was fitted on."""
        return np.array([self.watch(row)[0] for row in np.asarray(signals, float)])

    def _smoothed(self, signals: Floats) -> Iterator[Floats]:
        self._recent = deque(maxlen=self.smoothing)
        return (self._smooth(row) for row in signals)

    def _smooth(self, row: Floats) -> Floats:
        self._recent.append(row)
        smooth: Floats = np.mean(self._recent, axis=0)
        return smooth


def anomaly_message(rows: pl.DataFrame) -> pl.DataFrame:
    """Messages of `anomaly-detected`; contributions by signal, which sum to one."""
    return rows.select(
        "timestamp",
        "machine_id",
        anomaly_score=pl.col("output").list.get(0),
        threshold=pl.lit(1.0),
        is_anomaly=pl.col("prediction") == "anomaly",
        confidence="confidence",
        feature_contributions=_by_signal(ANOMALY_INPUTS),
    )


def _by_signal(names: tuple[str, ...]) -> pl.Expr:
    """The contributions of a signal's inputs, together."""
    shares = pl.col("contributions").struct
    sums = pl.struct(
        pl.sum_horizontal(shares.field(name) for name in names if name.startswith(signal)).alias(signal)
        for signal in SIGNALS
    )
    return pl.when(pl.col("contributions").is_not_null()).then(sums)


def life_message(rows: pl.DataFrame) -> pl.DataFrame:
    """Messages of `maintenance-predictions`; what to do follows from the lower end of the interval. Contributions, in
    hours by signal, are of critical ones."""
    hours = pl.col("output").list.get(0)
    least = pl.coalesce("low", hours).clip(lower_bound=0)
    action, priority = pl.lit("none"), pl.lit("low")
    for below, what, how_soon in reversed(ACTIONS):
        action = pl.when(least < below).then(pl.lit(what)).otherwise(action)
        priority = pl.when(least < below).then(pl.lit(how_soon)).otherwise(priority)
    return rows.select(
        "timestamp",
        "machine_id",
        predicted_rul_hours=hours.clip(lower_bound=0).round(3),
        confidence_interval=pl.concat_list(least.round(3), pl.coalesce("high", hours).round(3)),
        recommended_action=action,
        priority=priority,
        feature_contributions=_by_signal(LIFE_INPUTS),
    )


def _exponential(signals: Floats, share: float = 0.1) -> Floats:
    smooth = np.empty_like(signals)
    smooth[0] = signals[0]
    for row in range(1, len(signals)):
        smooth[row] = smooth[row - 1] + share * (signals[row] - smooth[row - 1])
    return smooth


LIFE_CAP = timedelta(hours=1)
"""The fleet's: of a mean life of two hours, wear shows in the last."""
ACTIONS = (
    (0.1, "stop it and replace the worn parts", "critical"),
    (0.3, "replace the worn parts in this shift", "high"),
    (0.7, "order parts, and plan a stop", "medium"),
)
"""Below so many hours left, what to do, and how soon."""
_KNOWN = SIGNALS[-1]
"""Of a machine whose normal ranges nobody has given, nothing can be said."""
ANOMALY_INPUTS = (*(f"{signal}_now" for signal in SIGNALS), "power_recent", "power_long")
"""What it draws now and has drawn, which the temperature follows, with the other signals."""

ANOMALIES = Model(
    name="machine_anomaly",
    means="How far a machine's readings are from normal, and which signals they are that are.",
    features="machine_features",
    where=f"{_KNOWN}_now IS NOT NULL",
    inputs=ANOMALY_INPUTS,
    label=Normal(truth="gold/machine_faults", where="true", begin="begin", end="end"),
    # All components: the signals are few, and the least of their variance is where a fault shows most.
    estimator=lambda parameters: NormalRegion(**parameters),
    defaults={"explained": 0.9999, "quantile": 0.995, "threshold": 1.1},
    stream=Stream("anomaly-detected", anomaly_message),
    least_rows=2_000,
)

LIFE_INPUTS = (
    *(f"{signal}_{name}" for signal in SIGNALS for name in HORIZONS if name != "now"),
    *(f"{signal}_spread" for signal in SIGNALS),
)

LIFE = Model(
    name="machine_life",
    means="The hours that a machine has left before it fails.",
    features="machine_features",
    where=f"first_of_minute AND {_KNOWN}_now IS NOT NULL",
    inputs=LIFE_INPUTS,
    label=Until(truth="silver/maintenance_log", where="kind = 'failure'", time="timestamp", cap=LIFE_CAP, unit="h"),
    estimator=boosted("regression"),
    space=space((7, 31), (20, 200)),
    defaults=defaults(31, 40),
    groups=("machine_id",),
    stream=Stream(
        "maintenance-predictions", life_message, pl.coalesce("low", pl.col("output").list.get(0)) < ACTIONS[0][0]
    ),
)

MODELS = (ANOMALIES, LIFE)
