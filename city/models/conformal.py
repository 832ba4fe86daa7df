"""Computes prediction intervals from a model's residuals on data that it was not fitted on.

The method is conformal prediction (Vovk et al., 2005). Single rows are calibrated separately at each level of the
prediction (Mondrian). The reason: most of a fleet is far from failing, and how well that is predicted says nothing
about machines that are near to failing. Whole groups (an engine, a sensor) are too few for that. There, groups are the
exchangeable units, and each has the same weight, however many rows it has. Residuals are scaled by how large they are
at that level of the prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats

_LEAST_ROWS = 20


@dataclass(frozen=True)
class Intervals:
    """Turns predictions into intervals that contain the share `coverage` of the outcomes."""

    coverage: float
    edges: tuple[float, ...]
    """Inner borders of the levels of prediction."""
    widths: tuple[float, ...]
    """Half the width of the interval at each level. There is one more than `edges`."""

    def around(self, predicted: Floats) -> tuple[Floats, Floats]:
        """Returns the lower and the upper ends (n,) for predictions (n,)."""
        half = np.asarray(self.widths)[np.searchsorted(self.edges, predicted)]
        return predicted - half, predicted + half


def intervals(
    predicted: Floats,
    actual: Floats,
    groups: Sequence[object] | NDArray[np.generic] | None = None,
    coverage: float = 0.9,
    levels: int = 10,
    sources: int | None = None,
) -> Intervals:
    """Fits intervals on out-of-sample predictions (n,) and outcomes (n,).

    `groups` (n,) names the unit of each row. Without it, each row is a unit by itself. `sources` is the number of
    machines or cards that these single rows come from. The intervals are for one that is not among them, so they have
    the quantile of so many units: the fewer they are, the wider are the intervals.

    Raises ValueError for fewer than 20 rows, for values that are not finite, or for fewer groups than the coverage
    needs.
    """
    predicted, actual = np.asarray(predicted, float), np.asarray(actual, float)
    if len(predicted) < _LEAST_ROWS:
        raise ValueError(f"{len(predicted)} rows are too few for intervals; give at least {_LEAST_ROWS}")
    if not (np.isfinite(predicted).all() and np.isfinite(actual).all()):
        raise ValueError("predictions and outcomes must be finite: leave out the rows that are not")
    residuals = np.abs(actual - predicted)
    if groups is None:
        share = coverage if sources is None else min(coverage * (sources + 1) / sources, (1 + coverage) / 2)
        return replace(_fit_by_level(predicted, residuals, share, levels), coverage=coverage)
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, levels + 1)[1:-1]))
    at = np.searchsorted(edges, predicted)
    # A level whose residuals are all zero would divide by zero, and promise a width of zero.
    floor = max(1e-3 * float(np.sqrt(np.mean(residuals**2))), 1e-12)
    scale = np.array([_root_mean_square(residuals[at == level], floor) for level in range(len(edges) + 1)])
    quantile = _group_quantile(residuals / scale[at], np.asarray(groups), coverage)
    return Intervals(coverage, tuple(edges), tuple(quantile * scale))


def _fit_by_level(predicted: Floats, residuals: Floats, coverage: float, levels: int) -> Intervals:
    """Fits intervals at each level of the prediction separately.

    A value that enough rows share to fill a level is a level of its own.
    """
    least = max(_LEAST_ROWS, int(np.ceil(coverage / (1 - coverage))))
    distinct, sizes = np.unique(predicted, return_counts=True)
    frequent = np.flatnonzero(sizes * levels > len(predicted))
    others, midpoints = np.delete(distinct, frequent), (distinct[1:] + distinct[:-1]) / 2
    count = int(np.clip(len(others) // least, 1, levels))
    cuts: list[float] = np.quantile(others, np.linspace(0, 1, count + 1)[1:-1]).tolist() if count > 1 else []
    edges = np.unique([*cuts, *midpoints[frequent[frequent > 0] - 1], *midpoints[frequent[frequent < len(midpoints)]]])
    at = np.searchsorted(edges, predicted)
    rows = [np.flatnonzero(at == level) for level in range(len(edges) + 1)]
    quantiles = {
        level: _group_quantile(residuals[places], places, coverage)
        for level, places in enumerate(rows)
        if len(places) >= least
    }
    # For a level with too few rows nothing is known, so its intervals are as wide as the widest.
    widest = max(quantiles.values(), default=float(residuals.max()))
    return Intervals(coverage, tuple(edges), tuple(max(quantiles.get(n, widest), 1e-12) for n in range(len(rows))))


def _group_quantile(scores: Floats, groups: NDArray[np.generic], coverage: float) -> float:
    """Returns the score that a row of a new group does not exceed with the probability `coverage`.

    Raises ValueError where there are too few groups for that coverage.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    # One more unit is counted, the new one: so the coverage is valid for finitely many units, too.
    level = coverage * (len(sizes) + 1) / len(sizes)
    if level > 1:
        raise ValueError(
            f"{len(sizes)} groups cannot carry intervals of coverage {coverage}: give more, or ask for less"
        )
    order = np.argsort(scores)
    weight = np.cumsum((1 / sizes[group] / len(sizes))[order])
    at = min(int(np.searchsorted(weight, level - 1e-12)), len(scores) - 1)
    return float(scores[order][at])


def _root_mean_square(values: Floats, floor: float) -> float:
    return max(float(np.sqrt(np.mean(values**2))), floor) if len(values) else floor
