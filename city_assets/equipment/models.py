"""The models of the machines: anomalies in their signals, and their remaining life."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from city.arrays import Floats
from city.models.anomaly import NormalRegion, combined_index, contributions
from city.models.labels import NormalState
from city.models.model import Model, Stream
from city_assets.equipment.contract import FLEET, SIGNALS
from city_assets.equipment.life import life_model, sum_by_signal
from city_assets.equipment.tables import MACHINE_FEATURES


@dataclass
class AnomalyDetector:
    """Detects anomalies in a stream of signals by the principal components of normal signals.

    The score is the combined index of T² and Q, divided by its limit for normal data. A score over `threshold` is an
    anomaly. Signals are smoothed by a trailing mean. The centre follows slow change (warming up, wear) while the score
    is normal, and stands still during an anomaly.
    """

    smoothing: int = 15
    """The number of rows of the trailing mean."""
    explained: float = 0.99
    """The share of the variance that the components explain."""
    adaption: float = 0.01
    """The share of its distance to the row that the centre moves at each normal row."""
    threshold: float = 3.0
    """A higher score is an anomaly."""
    quantile: float = 0.995
    """The quantile of the scores of normal data that counts as their limit."""

    _recent: deque[Floats] = field(default_factory=deque, init=False, repr=False)

    def fit(self, signals: Floats) -> "AnomalyDetector":
        """Fits the detector to normal rows (n, s) in order of time.

        All rows must be normal. A constant signal is ignored.

        Raises ValueError if there are fewer rows than three times the signals, if a value is not finite, or if every
        signal is constant.
        """
        signals = np.asarray(signals, float)
        if len(signals) < max(3 * signals.shape[1], self.smoothing + 2):
            raise ValueError(f"{len(signals)} normal rows are too few for {signals.shape[1]} signals")
        if not np.isfinite(signals).all():
            raise ValueError("normal rows must be finite: fill or leave out what is missing")
        smooth = np.array(list(self._smooth_rows(signals)))
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
        """Scores the next row (s,).

        Returns the score and the share of each signal in it (s,). A score over 1 is beyond normal, a score over
        `threshold` is an anomaly. The shares sum to one.
        """
        deviation = (self._smooth_row(row) - self._mean) / self._scale * self._live - self._centre
        score = float(((self._root @ deviation) ** 2).sum())
        if score <= self.threshold:
            self._centre = self._centre + self.adaption * deviation
        return score, contributions(self._root, deviation)

    def scores(self, signals: Floats) -> Floats:
        """Returns the scores (n,) of rows (n, s) that follow the rows of the fit."""
        return np.array([self.watch(row)[0] for row in np.asarray(signals, float)])

    def _smooth_rows(self, signals: Floats) -> Iterator[Floats]:
        self._recent = deque(maxlen=self.smoothing)
        return (self._smooth_row(row) for row in signals)

    def _smooth_row(self, row: Floats) -> Floats:
        self._recent.append(row)
        smooth: Floats = np.mean(self._recent, axis=0)
        return smooth


def anomaly_message(rows: pl.DataFrame) -> pl.DataFrame:
    """Returns the messages of the topic `anomaly-detected`. The contributions are shares by signal that sum to one."""
    return rows.select(
        "timestamp",
        "machine_id",
        anomaly_score=pl.col("output").list.get(0),
        threshold=pl.lit(1.0),
        is_anomaly=pl.col("prediction") == "anomaly",
        confidence="confidence",
        feature_contributions=sum_by_signal(FLEET, ANOMALY_INPUTS),
    )


_CHECKED_SIGNAL = SIGNALS[-1]
"""This signal is null for a machine whose normal ranges nobody has given. Such a machine cannot be judged."""
ANOMALY_INPUTS = (*(f"{signal}_now" for signal in SIGNALS), "power_recent", "power_long")
"""The signals now, and the power of the last minute and ten minutes, because the temperature follows the power."""

ANOMALIES = Model(
    name="machine_anomaly",
    description="How far a machine's readings are from normal, and which signals they are that are.",
    features="machine_features",
    where=f"{_CHECKED_SIGNAL}_now IS NOT NULL",
    inputs=ANOMALY_INPUTS,
    label=NormalState(truth="gold/machine_faults", where="true", begin="begin", end="end"),
    # All components are used: the signals are few, and a fault shows most where the variance is least.
    estimator=lambda parameters: NormalRegion(**parameters),
    defaults={"explained": 0.9999, "quantile": 0.995, "threshold": 1.1},
    stream=Stream("anomaly-detected", anomaly_message),
    least_rows=2_000,
)

LIFE = life_model(
    FLEET,
    name="machine_life",
    features=MACHINE_FEATURES.name,
    log="silver/maintenance_log",
    topic="maintenance-predictions",
)

MODELS = (ANOMALIES, LIFE)
