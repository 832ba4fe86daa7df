"""Two samples of one feature compared: how far apart, and how likely so by chance.

Every measure gives its statistic, the probability of one as large where nothing has changed, and an effect size that
does not grow with the samples. Missing values are a bin, or a category, of their own: that they become more is drift.

SciPy takes over a second to import, so only who measures does it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats

BINS = 10
_PERMUTATIONS = 200
_SEED = 0


@dataclass(frozen=True)
class Measured:
    """One feature's two samples by one measure."""

    statistic: float
    p_value: float
    effect: float


def kolmogorov_smirnov(reference: Floats, current: Floats) -> Measured:
    """The largest distance of the two distribution functions, which is the effect, too."""
    from scipy import stats

    reference, current = _known(reference), _known(current)
    if not (len(reference) and len(current)):
        return Measured(1.0, float(len(reference) == len(current)), float(len(reference) != len(current)))
    found = stats.ks_2samp(reference, current, method="asymp")
    return Measured(float(found.statistic), float(found.pvalue), float(found.statistic))


def wasserstein(reference: Floats, current: Floats) -> Measured:
    """The distance that must be carried, in standard deviations of the reference. Its distribution is that of random
    permutations, whose mean and spread a gamma distribution takes over, for its far end."""
    from scipy import stats

    reference, current = _known(reference), _known(current)
    scale = float(reference.std()) if len(reference) else 0.0
    if scale == 0 or not len(current):
        moved = not np.array_equal(np.unique(reference), np.unique(current))
        return Measured(float(moved), float(not moved), float(moved))
    pooled = np.concatenate([reference, current])
    order = np.argsort(pooled, kind="stable")
    gaps = np.diff(pooled[order])
    step = np.where(np.arange(len(pooled)) < len(reference), 1 / len(reference), -1 / len(current))
    distance = float(np.abs(step[order].cumsum()[:-1]) @ gaps)
    null = _shuffled(len(reference), len(current)) @ gaps
    shape, width = null.mean() ** 2 / null.var(), null.var() / null.mean()
    return Measured(distance / scale, float(stats.gamma.sf(distance, shape, scale=width)), distance / scale)


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
    """Of categories; the effect is Cramér's V. A category that one sample alone has counts."""
    from scipy import stats

    names, where = np.unique(
        [str(value) for value in np.concatenate([np.asarray(reference, object), np.asarray(current, object)])],
        return_inverse=True,
    )
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

    scores = [_normal_scores(reference, sample) for sample in (reference, current)]
    upper = np.triu_indices(reference.shape[1], 1)
    was, now = (np.atleast_2d(np.corrcoef(sample.T))[upper] for sample in scores)
    z = [np.arctanh(np.clip(np.nan_to_num(r), -0.999999, 0.999999)) for r in (was, now)]
    spread = np.sqrt(1 / max(len(reference) - 3, 1) + 1 / max(len(current) - 3, 1))
    return 2 * stats.norm.sf(np.abs(z[0] - z[1]) / spread), np.abs(np.nan_to_num(was) - np.nan_to_num(now))


def histogram(reference: Floats, current: Floats) -> tuple[Floats, NDArray[np.int_], NDArray[np.int_]]:
    """Inner edges of bins of the reference's quantiles, and both samples' counts in them; the last bin is of the
    missing."""
    known = _known(reference)
    edges: Floats = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1])) if known.size else known
    counts = [
        np.append(np.bincount(np.searchsorted(edges, _known(s)), minlength=len(edges) + 1), len(s) - len(_known(s)))
        for s in (reference, current)
    ]
    return edges, counts[0], counts[1]


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
