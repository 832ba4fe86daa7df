"""Concept drift: a model's errors, once the labels are there."""

import numpy as np

from city.arrays import Floats
from city.drift.measures import Measured


def decayed(reference: Floats, current: Floats) -> Measured:
    """Whether losses (0 or 1, absolute or squared errors) have grown: Welch's test, one-sided. The effect is the
    growth in standard deviations of the reference's losses.

    Raises ValueError for fewer than two losses in a sample.
    """
    # By scipy.special alone: scipy.stats is 80 MB, which every process that asks once would keep.
    from scipy import special

    if min(len(reference), len(current)) < 2:
        raise ValueError("give at least two losses of each sample")
    growth = float(current.mean() - reference.mean())
    spread = float(np.sqrt((reference.var() + current.var()) / 2))
    if spread == 0:
        return Measured(growth, float(growth <= 0), float(growth > 0))
    counts = np.array([len(reference), len(current)])
    parts = np.array([reference.var(ddof=1), current.var(ddof=1)]) / counts
    statistic = growth / float(np.sqrt(parts.sum()))
    freedom = parts.sum() ** 2 / (parts**2 / (counts - 1)).sum()
    return Measured(statistic, float(special.stdtr(freedom, -statistic)), growth / spread)
