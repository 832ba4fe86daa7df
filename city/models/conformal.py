"""Prediction intervals from what a model missed by on data it was not fitted on.

Conformal prediction (Vovk et al., 2005), with residuals scaled by how much the model misses at that level of its
prediction, and with whole groups (an engine, a sensor) as the exchangeable units: each weighs the same, however many
rows it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats

_LEAST_ROWS = 20


@dataclass(frozen=True)
class Intervals:
    """Turns predictions into intervals that hold `coverage` of what comes."""

    coverage: float
    edges: tuple[float, ...]
    """Inner borders of the levels of prediction."""
    widths: tuple[float, ...]
    """Half the width of the interval at each level; one more than borders."""

    def around(self, predicted: Floats) -> tuple[Floats, Floats]:
        """Lower and upper end for each prediction."""
        half = np.asarray(self.widths)[np.searchsorted(self.edges, predicted)]
        return predicted - half, predicted + half


def intervals(
    predicted: Floats,
    actual: Floats,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    coverage: float = 0.9,
    levels: int = 10,
) -> Intervals:
    """Fits on out-of-sample predictions (n,) and what came (n,); `groups` (n,) names the unit of each row.

    Raises ValueError for fewer than 20 rows, for values that are not finite, or for fewer groups than the coverage
    needs.
    """
    predicted, actual = np.asarray(predicted, float), np.asarray(actual, float)
    if len(predicted) < _LEAST_ROWS:
        raise ValueError(f"{len(predicted)} rows are too few for intervals; give at least {_LEAST_ROWS}")
    if not (np.isfinite(predicted).all() and np.isfinite(actual).all()):
        raise ValueError("predictions and outcomes must be finite: leave out the rows that are not")
    missed = np.abs(actual - predicted)
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, levels + 1)[1:-1]))
    at = np.searchsorted(edges, predicted)
    # A level that never missed would divide by zero, and promise a width of nothing.
    floor = max(1e-3 * float(np.sqrt(np.mean(missed**2))), 1e-12)
    scale = np.array([_root_mean_square(missed[at == level], floor) for level in range(len(edges) + 1)])
    of = np.arange(len(predicted)) if groups is None else np.asarray(groups)
    quantile = _quantile(missed / scale[at], of, coverage)
    return Intervals(coverage, tuple(edges), tuple(quantile * scale))


def _quantile(scores: Floats, groups: NDArray[Any], coverage: float) -> float:
    """The score that a new group's row stays under with the probability `coverage`."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    # One unit more, of which nothing is known: that makes the promise hold for finitely many.
    wanted = coverage * (len(sizes) + 1) / len(sizes)
    if wanted > 1:
        raise ValueError(
            f"{len(sizes)} groups cannot carry intervals of coverage {coverage}: give more, or ask for less"
        )
    order = np.argsort(scores)
    weight = np.cumsum((1 / sizes[group] / len(sizes))[order])
    at = min(int(np.searchsorted(weight, wanted - 1e-12)), len(scores) - 1)
    return float(scores[order][at])


def _root_mean_square(values: Floats, floor: float) -> float:
    return max(float(np.sqrt(np.mean(values**2))), floor) if len(values) else floor
