"""Prediction intervals from what a model missed by on data it was not fitted on.

Conformal prediction (Vovk et al., 2005). Single rows are calibrated at each level of the prediction by itself
(Mondrian), for most of a fleet is far from failing, and how well that is told says nothing of machines that are near.
Of whole groups (an engine, a sensor) there are too few for that: they are the exchangeable units, each weighs the same,
however many rows it has, and residuals are scaled by how much the model misses at that level.
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
    if groups is None:
        return _by_level(predicted, missed, coverage, levels)
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, levels + 1)[1:-1]))
    at = np.searchsorted(edges, predicted)
    # A level that never missed would divide by zero, and promise a width of nothing.
    floor = max(1e-3 * float(np.sqrt(np.mean(missed**2))), 1e-12)
    scale = np.array([_root_mean_square(missed[at == level], floor) for level in range(len(edges) + 1)])
    quantile = _quantile(missed / scale[at], np.asarray(groups), coverage)
    return Intervals(coverage, tuple(edges), tuple(quantile * scale))


def _by_level(predicted: Floats, missed: Floats, coverage: float, levels: int) -> Intervals:
    """A value that so many rows have that they fill a level is a level of its own."""
    least = max(_LEAST_ROWS, int(np.ceil(coverage / (1 - coverage))))
    distinct, sizes = np.unique(predicted, return_counts=True)
    often = np.flatnonzero(sizes * levels > len(predicted))
    others, between = np.delete(distinct, often), (distinct[1:] + distinct[:-1]) / 2
    count = int(np.clip(len(others) // least, 1, levels))
    cuts: list[float] = np.quantile(others, np.linspace(0, 1, count + 1)[1:-1]).tolist() if count > 1 else []
    edges = np.unique([*cuts, *between[often[often > 0] - 1], *between[often[often < len(between)]]])
    at = np.searchsorted(edges, predicted)
    rows = [np.flatnonzero(at == level) for level in range(len(edges) + 1)]
    known = {level: _quantile(missed[of], of, coverage) for level, of in enumerate(rows) if len(of) >= least}
    # Of a level with too few rows nothing is known, so its intervals are as wide as any.
    widest = max(known.values(), default=float(missed.max()))
    return Intervals(coverage, tuple(edges), tuple(max(known.get(n, widest), 1e-12) for n in range(len(rows))))


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
