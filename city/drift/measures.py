"""Compares two samples of one feature: how far apart they are, and how likely that is by chance.

Every measure returns its statistic, the probability of a statistic as large where nothing has changed, and an effect
size that does not grow with the samples. Missing values are a bin, or a category, of their own: more of them is drift.
No measure depends on the sign of the values (samples mirrored at zero have the same drift) or on their dtype.

SciPy takes over a second to import, so each function that needs it imports it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats

BINS = 10
_PERMUTATIONS = 200
_SEED = 0
_MISSING = "\0"  # no other category has this text


@dataclass(frozen=True)
class Measurement:
    """The result of one measure for the two samples of one feature."""

    statistic: float
    """In the unit that the function of the measure names."""
    p_value: float
    """The probability of such a statistic where both samples have one distribution."""
    effect: float
    """The size of the difference. It does not grow with the number of rows."""


def kolmogorov_smirnov(reference: Floats, current: Floats) -> Measurement:
    """Measures the largest distance of the two distribution functions, which is the effect, too.

    The samples are numbers (n,) and (m,). Values that are not finite are left out.
    """
    from scipy import stats

    reference, current = (_finite_values(sample) for sample in to_common_precision(reference, current))
    if not (len(reference) and len(current)):
        return Measurement(1.0, float(len(reference) == len(current)), float(len(reference) != len(current)))
    if len(reference) == len(current) == 1:  # one value each proves nothing; SciPy returns NaN
        different = float(reference[0] != current[0])
        return Measurement(different, 1.0, different)
    result = stats.ks_2samp(reference, current, method="asymp")
    return Measurement(float(result.statistic), float(result.pvalue), float(result.statistic))


def wasserstein(reference: Floats, current: Floats) -> Measurement:
    """Measures the Wasserstein distance of samples (n,) and (m,), in standard deviations of the reference.

    Its distribution by chance is that of random permutations. A gamma distribution of the same mean and variance stands
    in for it, because few permutations reach its far end.
    """
    from scipy import stats

    reference, current = (_finite_values(sample) for sample in to_common_precision(reference, current))
    # Minimum and maximum are compared: the computed deviation of a constant such as 0.1 is not exactly zero.
    is_constant = not len(reference) or reference.min() == reference.max()
    if is_constant or not len(current):
        moved = not np.array_equal(np.unique(reference), np.unique(current))
        return Measurement(float(moved), float(not moved), float(moved))
    scale = float(reference.std())
    pooled = np.concatenate([reference, current])
    order = np.argsort(pooled, kind="stable")
    gaps = np.diff(pooled[order])
    step = np.where(np.arange(len(pooled)) < len(reference), 1 / len(reference), -1 / len(current))
    distance = float(np.abs(step[order].cumsum()[:-1]) @ gaps)
    # Each permutation is used with its mirror image, so that chance is the same for mirrored samples.
    null = _permuted_distances(len(reference), len(current)) @ np.column_stack([gaps, gaps[::-1]])
    mean, variance = null.mean(), null.var()
    if variance == 0:  # with so few rows that every permutation is as far apart
        return Measurement(distance / scale, 1.0, distance / scale)
    p_value = float(stats.gamma.sf(distance, mean**2 / variance, scale=variance / mean))
    return Measurement(distance / scale, p_value, distance / scale)


@lru_cache(maxsize=4)
def _permuted_distances(reference: int, current: int) -> Floats:
    """Computes the distances of the distribution functions of two random samples of these sizes.

    Returns an array (permutations, rows - 1). A column has the distances between one row of the pooled samples and the
    next. Chance decides which row belongs to which sample. The result is the same for all features, so it is cached.
    """
    step = np.repeat([1 / reference, -1 / current], [reference, current])
    shuffled = np.random.default_rng(_SEED).permuted(np.tile(step, (_PERMUTATIONS, 1)), axis=1)
    distances: Floats = np.abs(np.asarray(shuffled).cumsum(1)[:, :-1])
    return distances


def population_stability(reference: Floats, current: Floats) -> Measurement:
    """Measures the population stability index (PSI) over bins of the reference's deciles.

    With n and m rows it is distributed as (1/n + 1/m) χ², with one degree of freedom less than there are bins (Yurdakul
    and Naranjo, 2020).
    """
    return _measure_divergence(reference, current, lambda p, q: float(((p - q) * np.log(p / q)).sum()), 1.0)


def kullback_leibler(reference: Floats, current: Floats) -> Measurement:
    """Measures the divergence of the current from the reference distribution, in nats, over the same bins.

    The samples are numbers (n,) and (m,).
    """
    return _measure_divergence(reference, current, lambda p, q: float((q * np.log(q / p)).sum()), 0.5)


def jensen_shannon(reference: Floats, current: Floats) -> Measurement:
    """Measures the divergence of both distributions from their mean, in nats (Lin, 1991), over the same bins.

    The samples are numbers (n,) and (m,).
    """

    def divergence(p: Floats, q: Floats) -> float:
        middle = (p + q) / 2
        return float((p * np.log(p / middle) + q * np.log(q / middle)).sum() / 2)

    return _measure_divergence(reference, current, divergence, 0.125)


def chi_square(reference: NDArray[np.generic], current: NDArray[np.generic]) -> Measurement:
    """Compares the categories of two samples (n,) and (m,) by the χ² test. The effect is Cramér's V.

    A category that only one sample has counts, too. Numbers of equal value (1, 1.0 and True) are the same category. All
    values that mark a missing value are one category.
    """
    from scipy import stats

    labels = [_category_name(value) for sample in (reference, current) for value in np.asarray(sample)]
    names, codes = np.unique(labels, return_inverse=True)
    if len(names) < 2 or not (len(reference) and len(current)):
        return Measurement(0.0, 1.0, 0.0)
    table = np.stack([np.bincount(part, minlength=len(names)) for part in np.split(codes, [len(reference)])])
    result = stats.chi2_contingency(table, correction=False)
    return Measurement(float(result.statistic), float(result.pvalue), float(np.sqrt(result.statistic / table.sum())))


NUMERIC: dict[str, Callable[[Floats, Floats], Measurement]] = {
    "ks": kolmogorov_smirnov,
    "psi": population_stability,
    "kl": kullback_leibler,
    "js": jensen_shannon,
    "wasserstein": wasserstein,
}


def correlations(reference: Floats, current: Floats) -> tuple[Floats, Floats]:
    """Compares the correlation of every pair of features (columns of two arrays (n, f) and (m, f)).

    Returns, for each pair, the probability that the correlations differ so much by chance, and their difference.

    The values are first made normal by the reference's ranks, so that a feature's own drift or odd shape matters
    little. The correlations are then compared by Fisher's z.
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
    """Counts the rows of both samples in bins of the reference's deciles.

    Returns the inner edges of the bins, ascending, and the counts of both samples in the bins. The last bin is that of
    the missing values.

    A value that half a bin's rows of the reference share is a bin of its own, and stands twice among the edges. Any
    other row on an edge counts half in the bin below and half in the bin above, so neither side is preferred.
    """
    reference, current = to_common_precision(reference, current)
    edges = _bin_edges(np.sort(_finite_values(reference)))
    counts = []
    for sample in (reference, current):
        finite = _finite_values(sample)
        in_bins = [np.bincount(bins, minlength=len(edges) + 1) for bins in _neighbour_bins(edges, finite)]
        counts.append(np.append((in_bins[0] + in_bins[1]) / 2, len(sample) - len(finite)))
    return edges, counts[0], counts[1]


def _bin_edges(ordered: Floats) -> Floats:
    """Returns the deciles of an ascending sample. A decile that many rows share stands twice."""
    if not len(ordered):
        return ordered
    # Positions are whole numbers: rounding would differ between a sample and its mirror image.
    below, rest = np.divmod(np.arange(1, BINS) * (len(ordered) - 1), BINS)
    deciles = np.unique(ordered[below] / 2 + ordered[below + (rest > 0)] / 2)
    rows = np.searchsorted(ordered, deciles, "right") - np.searchsorted(ordered, deciles, "left")
    return np.repeat(deciles, np.where(rows > len(ordered) / (2 * BINS), 2, 1))


def _neighbour_bins(edges: Floats, values: Floats) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Returns two bins for each value: the same bin twice, except for a value on a single edge."""
    low, high = (np.searchsorted(edges, values, side) for side in ("left", "right"))
    return (low + high) // 2, (low + high + 1) // 2


def _measure_divergence(
    reference: Floats, current: Floats, divergence: Callable[[Floats, Floats], float], per_chi_square: float
) -> Measurement:
    """Measures a divergence over the bins of `histogram`.

    With n and m rows, the divergence is distributed as `per_chi_square` (1/n + 1/m) χ².
    """
    from scipy import stats

    _, was, now = histogram(reference, current)
    seen = (was + now) > 0
    if seen.sum() < 2 or not was.sum() or not now.sum():
        return Measurement(0.0, 1.0, 0.0)
    # Half a row is added to each bin: an empty bin would be infinitely far away.
    p, q = ((counts[seen] + 0.5) / (counts[seen] + 0.5).sum() for counts in (was, now))
    value = divergence(p, q)
    chi = value / per_chi_square / (1 / was.sum() + 1 / now.sum())
    return Measurement(value, float(stats.chi2.sf(chi, int(seen.sum()) - 1)), value)


def _normal_scores(reference: Floats, sample: Floats) -> Floats:
    """Returns the normal quantiles of a sample's ranks in the reference, column by column; 0 for a missing value."""
    from scipy import stats

    columns = []
    for column in range(reference.shape[1]):
        ordered = np.sort(_finite_values(reference[:, column]))
        if not ordered.size:
            columns.append(np.zeros(len(sample)))
            continue
        low = np.searchsorted(ordered, sample[:, column], "left")
        high = np.searchsorted(ordered, sample[:, column], "right")
        rank = ((low + high) / 2 + 0.5) / (len(ordered) + 1)
        columns.append(np.where(np.isnan(sample[:, column]), 0.0, stats.norm.ppf(rank.clip(1e-6, 1 - 1e-6))))
    return np.column_stack(columns)


def _finite_values(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def to_common_precision(reference: NDArray[np.generic], current: NDArray[np.generic]) -> tuple[Floats, Floats]:
    """Converts both samples (n,) and (m,) to float64, rounded to the coarser precision of the two.

    So 0.1 stored as float32 equals the 0.1 of float64.
    """
    precisions = [sample.dtype for sample in (reference, current) if sample.dtype.kind == "f"]
    coarser = min(precisions, key=lambda dtype: dtype.itemsize, default=np.dtype(np.float64))
    return reference.astype(coarser).astype(np.float64), current.astype(coarser).astype(np.float64)


def _category_name(value: object) -> str:
    """Returns a category's name. Numbers of equal value have the same name."""
    if value is None or value != value:
        return _MISSING
    if isinstance(value, int | np.integer | np.bool_):
        return str(int(value))
    if isinstance(value, float | np.floating | Decimal):
        return str(int(value)) if value == value // 1 and abs(value) != float("inf") else str(value)
    return str(value)
