"""Two samples of one feature compared: how far apart, and how likely so by chance.

Every measure gives its statistic, the probability of one as large where nothing has changed, and an effect size that
does not grow with the samples. Missing values are a bin, or a category, of their own: that they become more is drift.
No measure sees the sign of the values (samples mirrored at zero have the same drift) or their dtype.

SciPy takes over a second to import, so only who measures does it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats

BINS = 10
_PERMUTATIONS = 200
_SEED = 0
_MISSING = "\0"  # not the text of any other category


@dataclass(frozen=True)
class Measured:
    """One feature's two samples by one measure."""

    statistic: float
    p_value: float
    effect: float


def kolmogorov_smirnov(reference: Floats, current: Floats) -> Measured:
    """The largest distance of the two distribution functions, which is the effect, too."""
    from scipy import stats

    reference, current = (_known(sample) for sample in to_common_precision(reference, current))
    if not (len(reference) and len(current)):
        return Measured(1.0, float(len(reference) == len(current)), float(len(reference) != len(current)))
    if len(reference) == len(current) == 1:  # which says nothing; SciPy answers NaN
        different = float(reference[0] != current[0])
        return Measured(different, 1.0, different)
    found = stats.ks_2samp(reference, current, method="asymp")
    return Measured(float(found.statistic), float(found.pvalue), float(found.statistic))


def wasserstein(reference: Floats, current: Floats) -> Measured:
    """The distance that must be carried, in standard deviations of the reference. Its distribution is that of random
    permutations, whose mean and spread a gamma distribution takes over, for its far end."""
    from scipy import stats

    reference, current = (_known(sample) for sample in to_common_precision(reference, current))
    # By its ends: the computed deviation of a constant such as 0.1 is not exactly zero.
    is_constant = not len(reference) or reference.min() == reference.max()
    if is_constant or not len(current):
        moved = not np.array_equal(np.unique(reference), np.unique(current))
        return Measured(float(moved), float(not moved), float(moved))
    scale = float(reference.std())
    pooled = np.concatenate([reference, current])
    order = np.argsort(pooled, kind="stable")
    gaps = np.diff(pooled[order])
    step = np.where(np.arange(len(pooled)) < len(reference), 1 / len(reference), -1 / len(current))
    distance = float(np.abs(step[order].cumsum()[:-1]) @ gaps)
    # Each permutation and its mirror image, so that chance is the same for mirrored samples.
    null = _shuffled(len(reference), len(current)) @ np.column_stack([gaps, gaps[::-1]])
    mean, variance = null.mean(), null.var()
    if variance == 0:  # so few rows that every permutation is as far apart
        return Measured(distance / scale, 1.0, distance / scale)
    p_value = float(stats.gamma.sf(distance, mean**2 / variance, scale=variance / mean))
    return Measured(distance / scale, p_value, distance / scale)


@lru_cache(maxsize=4)
def _shuffled(reference: int, current: int) -> Floats:
    """(permutations, rows - 1): how far the distribution functions of two samples of these sizes are apart, from each
    row of the pooled ones to the next, where who is of which sample is chance. The same for all features."""
    step = np.repeat([1 / reference, -1 / current], [reference, current])
    shuffled = np.random.default_rng(_SEED).permuted(np.tile(step, (_PERMUTATIONS, 1)), axis=1)
    apart: Floats = np.abs(np.asarray(shuffled).cumsum(1)[:, :-1])
    return apart


def population_stability(reference: Floats, current: Floats) -> Measured:
    """PSI over bins of the reference's deciles. With n and m rows it is (1/n + 1/m) χ² of one freedom less than bins
    (Yurdakul and Naranjo, 2020)."""
    return _divergence(reference, current, lambda p, q: float(((p - q) * np.log(p / q)).sum()), 1.0)


def kullback_leibler(reference: Floats, current: Floats) -> Measured:
    """The divergence of the current from the reference distribution, in nats, over the same bins."""
    return _divergence(reference, current, lambda p, q: float((q * np.log(q / p)).sum()), 0.5)


def jensen_shannon(reference: Floats, current: Floats) -> Measured:
    """The divergence of both from their middle, in nats (Lin, 1991), over the same bins."""

    def of(p: Floats, q: Floats) -> float:
        middle = (p + q) / 2
        return float((p * np.log(p / middle) + q * np.log(q / middle)).sum() / 2)

    return _divergence(reference, current, of, 0.125)


def chi_square(reference: NDArray[Any], current: NDArray[Any]) -> Measured:
    """Of categories; the effect is Cramér's V. A category that one sample alone has counts. Numbers are the same
    category where their values are equal (1, 1.0 and True), and so is whatever marks a missing value."""
    from scipy import stats

    labels = [_label(value) for sample in (reference, current) for value in np.asarray(sample)]
    names, where = np.unique(labels, return_inverse=True)
    if len(names) < 2 or not (len(reference) and len(current)):
        return Measured(0.0, 1.0, 0.0)
    table = np.stack([np.bincount(part, minlength=len(names)) for part in np.split(where, [len(reference)])])
    found = stats.chi2_contingency(table, correction=False)
    return Measured(float(found.statistic), float(found.pvalue), float(np.sqrt(found.statistic / table.sum())))


NUMERIC: dict[str, Callable[[Floats, Floats], Measured]] = {
    "ks": kolmogorov_smirnov,
    "psi": population_stability,
    "kl": kullback_leibler,
    "js": jensen_shannon,
    "wasserstein": wasserstein,
}


def correlations(reference: Floats, current: Floats) -> tuple[Floats, Floats]:
    """Of every pair of features (columns of (n, f) and (m, f)): how likely their correlation differs so by chance,
    and by how much it differs.

    The values are first made normal by the reference's ranks, so that a feature's own drift or odd shape says little;
    then by Fisher's z.
    """
    from scipy import stats

    reference, current = to_common_precision(reference, current)
    scores = [_normal_scores(reference, sample) for sample in (reference, current)]
    upper = np.triu_indices(reference.shape[1], 1)
    was, now = (np.atleast_2d(np.corrcoef(sample.T))[upper] for sample in scores)
    z = [np.arctanh(np.clip(np.nan_to_num(r), -0.999999, 0.999999)) for r in (was, now)]
    spread = np.sqrt(1 / max(len(reference) - 3, 1) + 1 / max(len(current) - 3, 1))
    return 2 * stats.norm.sf(np.abs(z[0] - z[1]) / spread), np.abs(np.nan_to_num(was) - np.nan_to_num(now))


def histogram(reference: Floats, current: Floats) -> tuple[Floats, Floats, Floats]:
    """Inner edges of bins of the reference's quantiles, ascending, and both samples' counts in them; the last bin is
    of the missing.

    A value that half a bin's rows of the reference share is a bin of its own, and stands twice among the edges. Any
    other row on an edge counts half in the bin below and half in the one above, so neither side is preferred.
    """
    reference, current = to_common_precision(reference, current)
    edges = _edges(np.sort(_known(reference)))
    counts = []
    for sample in (reference, current):
        known = _known(sample)
        in_bins = [np.bincount(found, minlength=len(edges) + 1) for found in _neighbours(edges, known)]
        counts.append(np.append((in_bins[0] + in_bins[1]) / 2, len(sample) - len(known)))
    return edges, counts[0], counts[1]


def _edges(ordered: Floats) -> Floats:
    """The deciles of an ascending sample, those that many rows share twice."""
    if not len(ordered):
        return ordered
    # Positions as whole numbers: rounding would differ between a sample and its mirror image.
    below, rest = np.divmod(np.arange(1, BINS) * (len(ordered) - 1), BINS)
    deciles = np.unique(ordered[below] / 2 + ordered[below + (rest > 0)] / 2)
    rows = np.searchsorted(ordered, deciles, "right") - np.searchsorted(ordered, deciles, "left")
    return np.repeat(deciles, np.where(rows > len(ordered) / (2 * BINS), 2, 1))


def _neighbours(edges: Floats, known: Floats) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """The two bins of each value: the same one twice, except for a value on a single edge."""
    low, high = (np.searchsorted(edges, known, side) for side in ("left", "right"))
    return (low + high) // 2, (low + high + 1) // 2


def _divergence(
    reference: Floats, current: Floats, of: Callable[[Floats, Floats], float], per_chi_square: float
) -> Measured:
    from scipy import stats

    _, was, now = histogram(reference, current)
    seen = (was + now) > 0
    if seen.sum() < 2 or not was.sum() or not now.sum():
        return Measured(0.0, 1.0, 0.0)
    # Half a row in each bin: an empty one would be infinitely far away.
    p, q = ((counts[seen] + 0.5) / (counts[seen] + 0.5).sum() for counts in (was, now))
    value = of(p, q)
    chi = value / per_chi_square / (1 / was.sum() + 1 / now.sum())
    return Measured(value, float(stats.chi2.sf(chi, int(seen.sum()) - 1)), value)


def _normal_scores(reference: Floats, sample: Floats) -> Floats:
    from scipy import stats

    columns = []
    for column in range(reference.shape[1]):
        known = np.sort(_known(reference[:, column]))
        if not known.size:
            columns.append(np.zeros(len(sample)))
            continue
        low = np.searchsorted(known, sample[:, column], "left")
        high = np.searchsorted(known, sample[:, column], "right")
        rank = ((low + high) / 2 + 0.5) / (len(known) + 1)
        columns.append(np.where(np.isnan(sample[:, column]), 0.0, stats.norm.ppf(rank.clip(1e-6, 1 - 1e-6))))
    return np.column_stack(columns)


def _known(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def to_common_precision(reference: NDArray[Any], current: NDArray[Any]) -> tuple[Floats, Floats]:
    """Both as float64, rounded to the coarser precision of the two: 0.1 stored as float32 is the 0.1 of float64."""
    precisions = [sample.dtype for sample in (reference, current) if sample.dtype.kind == "f"]
    coarser = min(precisions, key=lambda dtype: dtype.itemsize, default=np.dtype(np.float64))
    return reference.astype(coarser).astype(np.float64), current.astype(coarser).astype(np.float64)


def _label(value: Any) -> str:
    """A category's name: numbers of equal value have the same."""
    if value is None or value != value:
        return _MISSING
    if isinstance(value, int | np.integer | np.bool_):
        return str(int(value))
    if isinstance(value, float | np.floating | Decimal):
        return str(int(value)) if value == value // 1 and abs(value) != float("inf") else str(value)
    return str(value)
