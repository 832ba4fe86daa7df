"""Remaining useful life, and anomalies of multivariate signals."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from city.arrays import Floats

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

    The score is the combined index of Hotelling's T² (how far inside the model's plane) and Q (how far off it), as
    Yue and Qin (2001) have it, over the largest of normal data; `threshold` times that is an anomaly. Signals are
    smoothed by a trailing mean. The centre follows slow change (warming up, wear) while nothing is wrong, and stands
    still while something is.
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
        _, singular, axes = np.linalg.svd(rows, full_matrices=False)
        variance = singular**2 / (len(rows) - 1)
        kept = int(np.searchsorted(np.cumsum(variance) / variance.sum(), self.explained)) + 1
        along = rows @ axes.T
        weight = np.zeros(len(variance))
        weight[:kept] = 1 / np.maximum(variance[:kept], 1e-12)
        weight[:kept] /= np.quantile((along[:, :kept] ** 2 * weight[:kept]).sum(1), self.quantile)
        if kept < len(variance):
            weight[kept:] = 1 / max(float(np.quantile((along[:, kept:] ** 2).sum(1), self.quantile)), 1e-12)
        weight /= np.quantile((along**2 * weight).sum(1), self.quantile)
        # The root of the index's matrix: the squares of a deviation's image are what each signal contributes.
        self._root = axes.T @ np.diag(np.sqrt(weight)) @ axes
        self._centre = np.zeros(signals.shape[1])
        return self

    def watch(self, row: Floats) -> tuple[float, Floats]:
        """The score of the next row (s,), over 1 beyond normal and over `threshold` an anomaly, and what each signal
        contributes to it: shares (s,) that sum to one."""
        away = (self._smooth(row) - self._mean) / self._scale * self._live - self._centre
        parts = (self._root @ away) ** 2
        score = float(parts.sum())
        if score <= self.threshold:
            self._centre = self._centre + self.adaption * away
        return score, parts / score if score > 0 else np.full(len(parts), 1 / len(parts))

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


def _exponential(signals: Floats, share: float = 0.1) -> Floats:
    smooth = np.empty_like(signals)
    smooth[0] = signals[0]
    for row in range(1, len(signals)):
        smooth[row] = smooth[row - 1] + share * (signals[row] - smooth[row - 1])
    return smooth
