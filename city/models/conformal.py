"""Computes prediction intervals from a model's residuals on data that it was not fitted on.

The method is conformal prediction (Vovk et al., 2005), separately at each level of the prediction (Mondrian). The
reason: most of a fleet is far from failing, and how well that is predicted says nothing about machines that are near to
failing. Intervals are then valid at each level, whichever levels the rows of the service have.

Rows of one group (an engine, a sensor) have errors in common, so groups are the exchangeable units. At each level, each
group has the same weight, however many rows it has there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
) -> Intervals:
    """Fits intervals on out-of-sample predictions (n,) and outcomes (n,), at up to so many `levels`.

    `groups` (n,) names the unit of each row. Without it, each row is a unit by itself. The intervals are for a row of a
    new group: the fewer groups there are at a level, the wider are its intervals.

    Raises ValueError for fewer than 20 rows, or for values that are not finite.
    """
    predicted, actual = np.asarray(predicted, float), np.asarray(actual, float)
    if len(predicted) < _LEAST_ROWS:
        raise ValueError(f"{len(predicted)} rows are too few for intervals; give at least {_LEAST_ROWS}")
    if not (np.isfinite(predicted).all() and np.isfinite(actual).all()):
        raise ValueError("predictions and outcomes must be finite: leave out the rows that are not")
    residuals = np.abs(actual - predicted)
    rows_of_groups = np.arange(len(predicted)) if groups is None else np.asarray(groups)
    units = np.unique(rows_of_groups, return_inverse=True)[1]
    least = max(_LEAST_ROWS, int(np.ceil(coverage / (1 - coverage))))
    edges = _level_edges(predicted, least, levels)
    at = np.searchsorted(edges, predicted)
    rows = [np.flatnonzero(at == level) for level in range(len(edges) + 1)]
    quantiles = {
        level: _group_quantile(residuals[places], units[places], coverage)
        for level, places in enumerate(rows)
        if len(places) >= least
    }
    # For a level with too few rows nothing is known, so its intervals are as wide as the widest.
    widest = max(quantiles.values(), default=float(residuals.max()))
    widths = tuple(max(quantiles.get(level, widest), 1e-12) for level in range(len(rows)))
    return Intervals(coverage, tuple(edges.tolist()), widths)


def _level_edges(predicted: Floats, least: int, levels: int) -> Floats:
    """Returns the inner borders of levels that have equally many of the distinct predictions, and at least `least`.

    A value that enough rows share to fill a level is a level of its own.
    """
    distinct, sizes = np.unique(predicted, return_counts=True)
    frequent = np.flatnonzero(sizes * levels > len(predicted))
    others, midpoints = np.delete(distinct, frequent), (distinct[1:] + distinct[:-1]) / 2
    count = int(np.clip(len(others) // least, 1, levels))
    cuts: list[float] = np.quantile(others, np.linspace(0, 1, count + 1)[1:-1]).tolist() if count > 1 else []
    return np.unique([*cuts, *midpoints[frequent[frequent > 0] - 1], *midpoints[frequent[frequent < len(midpoints)]]])


def _group_quantile(scores: Floats, groups: NDArray[np.generic], coverage: float) -> float:
    """Returns the score that a row of a new group does not exceed with the probability `coverage`.

    One more group is counted, the new one (Vovk et al., 2005): so the coverage is valid for finitely many groups, too.
    The level of few groups (fewer than 18 at a coverage of 0.9) is capped at (1 + coverage) / 2. Then the coverage is
    not guaranteed.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    level = min(coverage * (len(sizes) + 1) / len(sizes), (1 + coverage) / 2)
    order = np.argsort(scores)
    weight = np.cumsum((1 / sizes[group] / len(sizes))[order])
    at = min(int(np.searchsorted(weight, level - 1e-12)), len(scores) - 1)
    return float(scores[order][at])
