"""Detects concept drift: the growth of a model's errors, once the labels have arrived."""

import numpy as np

from city.arrays import Floats
from city.drift.measures import Measurement


def measure_decay(losses: Floats, rows: int) -> Measurement | None:
    """Tests whether the last `rows` losses of a model, in order of time, have grown since its first ones.

    Returns None while there are fewer than twice `rows` losses.
    """
    return None if len(losses) < 2 * rows else measure_loss_growth(losses[:rows], losses[-rows:])


def measure_loss_growth(reference: Floats, current: Floats) -> Measurement:
    """Tests whether losses (0 or 1, absolute or squared errors) have grown, by Welch's one-sided test.

    The effect is the growth, in standard deviations of the losses (the root of both samples' mean variance).

    Raises ValueError for fewer than two losses in a sample.
    """
    # Only scipy.special is imported: scipy.stats takes 80 MB, which every process that calls this once would keep.
    from scipy import special

    if min(len(reference), len(current)) < 2:
        raise ValueError("give at least two losses of each sample")
    growth = float(current.mean() - reference.mean())
    spread = float(np.sqrt((reference.var() + current.var()) / 2))
    if spread == 0:
        return Measurement(growth, float(growth <= 0), float(growth > 0))
    counts = np.array([len(reference), len(current)])
    parts = np.array([reference.var(ddof=1), current.var(ddof=1)]) / counts
    statistic = growth / float(np.sqrt(parts.sum()))
    freedom = parts.sum() ** 2 / (parts**2 / (counts - 1)).sum()
    return Measurement(statistic, float(special.stdtr(freedom, -statistic)), growth / spread)
