"""Concept drift: a model's errors, once the labels are there."""

import numpy as np

from city.arrays import Floats
from city.drift.measures import Measured
from city.welch import Sample, welch


def decayed(reference: Floats, current: Floats) -> Measured:
    """Whether losses (0 or 1, absolute or squared errors) have grown: Welch's test, one-sided. The effect is the
    growth in standard deviations of the reference's losses.

    Raises ValueError for fewer than two losses in a sample.
    """
    if min(len(reference), len(current)) < 2:
        raise ValueError("give at least two losses of each sample")
    growth = float(current.mean() - reference.mean())
    spread = float(np.sqrt((reference.var() + current.var()) / 2))
    if spread == 0:
        return Measured(growth, float(growth <= 0), float(growth > 0))
    found = welch(*(Sample(float(s.mean()), float(s.std(ddof=1)), len(s)) for s in (current, reference)))
    return Measured(found.statistic, found.greater, growth / spread)
