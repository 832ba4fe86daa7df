"""Compares windows with a reference window: each feature by itself, and the correlations of all."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from polars import selectors as cs

from city.arrays import Floats
from city.drift import measures
from city.drift.measures import Measurement

MISSING, CORRELATION, CHI_SQUARE = "missing", "correlation", "chi_square"
COMPARISON: dict[str, pl.DataType] = {
    "feature": pl.String(),
    "measure": pl.String(),
    "statistic": pl.Float64(),
    "p_value": pl.Float64(),
    "effect": pl.Float64(),
    "drifted": pl.Boolean(),
}
"""The columns of a comparison. They do not depend on the types of the columns that are compared."""


@dataclass(frozen=True)
class Thresholds:
    """The thresholds at which a difference is drift.

    A difference is drift when it is improbable, after correction for the number of comparisons, and large enough to
    matter.
    """

    alpha: float = 0.01
    """The share of windows in which a measure may report drift though nothing has changed."""
    effects: Mapping[str, float] = field(
        default_factory=lambda: {
            "ks": 0.1,
            "psi": 0.1,
            "kl": 0.05,
            "js": 0.0125,
            "wasserstein": 0.1,
            CHI_SQUARE: 0.1,
            CORRELATION: 0.15,
            MISSING: 0.02,
            "losses": 0.1,
        }
    )
    """The least effect of each measure. PSI under 0.1 is commonly called stable. Where changes are small, KL is a half
    of PSI, and JS is an eighth of it."""


@dataclass(frozen=True)
class Monitor:
    """Compares windows with a pinned reference of numeric and categorical columns."""

    reference: pl.DataFrame
    thresholds: Thresholds = Thresholds()

    def compare(self, current: pl.DataFrame) -> pl.DataFrame:
        """Compares a window with the reference.

        Returns a row for each feature (each pair of features, for correlation) and measure: `feature`, `measure`,
        `statistic`, `p_value` (corrected by Benjamini and Hochberg within the measure), `effect` and `drifted`, as
        `COMPARISON` types them.

        Raises ValueError where the window lacks columns of the reference, which it names, or where either has no rows.
        """
        if missing := sorted(set(self.reference.columns) - set(current.columns)):
            raise ValueError(f"the current window lacks {', '.join(missing)}, which the reference has")
        if not (self.reference.height and current.height):
            raise ValueError("a window without rows cannot be compared")
        numeric = self.reference.select(cs.numeric() | cs.boolean()).columns
        results: dict[str, dict[str, Measurement]] = {name: {} for name in [*measures.NUMERIC, CHI_SQUARE, MISSING]}
        for name in self.reference.columns:
            was, now = self.reference[name], current[name]
            results[MISSING][name] = _compare_missing(was, now)
            if name in numeric:
                pair = _to_float_pair(was, now)
                for measure, function in measures.NUMERIC.items():
                    results[measure][name] = function(*pair)
            else:
                results[CHI_SQUARE][name] = measures.chi_square(was.to_numpy(), now.to_numpy())
        results[CORRELATION] = self._compare_correlations(numeric, current)
        return pl.concat([self._apply_thresholds(measure, by_feature) for measure, by_feature in results.items()])

    def _compare_correlations(self, numeric: list[str], current: pl.DataFrame) -> dict[str, Measurement]:
        """Compares the correlation of each pair of numeric features, by the pair's name."""
        if len(numeric) < 2:
            return {}
        # Each feature is converted by itself: in one matrix, the types of the others would decide how it is compared.
        features = [_to_float_pair(self.reference[name], current[name]) for name in numeric]
        was, now = (np.column_stack(columns) for columns in zip(*features, strict=True))
        p_values, differences = measures.correlations(was, now)
        pairs = [f"{a} × {b}" for i, a in enumerate(numeric) for b in numeric[i + 1 :]]
        return {
            p: Measurement(float(d), float(v), float(d)) for p, v, d in zip(pairs, p_values, differences, strict=True)
        }

    def _apply_thresholds(self, measure: str, results: Mapping[str, Measurement]) -> pl.DataFrame:
        """Returns the rows of `compare` of one measure: corrects the probabilities and decides what has drifted."""
        from scipy import stats

        if not results:
            return pl.DataFrame(schema=COMPARISON)
        p_values = stats.false_discovery_control([m.p_value for m in results.values()])
        effects = [m.effect for m in results.values()]
        return pl.DataFrame(
            {
                "feature": list(results),
                "measure": [measure] * len(results),
                "statistic": [m.statistic for m in results.values()],
                "p_value": p_values,
                "effect": effects,
                "drifted": [
                    bool(p <= self.thresholds.alpha and e >= self.thresholds.effects[measure])
                    for p, e in zip(p_values, effects, strict=True)
                ],
            },
            schema=COMPARISON,
        )


def _to_float_pair(was: pl.Series, now: pl.Series) -> tuple[Floats, Floats]:
    """Converts both samples of a feature to float64, in their common precision, with NaN where a value is missing."""
    columns = [(s if s.dtype.is_float() else s.cast(pl.Float64)).fill_null(np.nan).to_numpy() for s in (was, now)]
    return measures.to_common_precision(*columns)


def _compare_missing(was: pl.Series, now: pl.Series) -> Measurement:
    """Tests whether the share of missing values (null, or not a number) has changed, by Fisher's exact test."""
    from scipy import stats

    missing = [int((s.fill_nan(None) if s.dtype.is_float() else s).null_count()) for s in (was, now)]
    table = [[missing[0], len(was) - missing[0]], [missing[1], len(now) - missing[1]]]
    p_value = float(stats.fisher_exact(table).pvalue) if sum(missing) else 1.0
    difference = missing[1] / len(now) - missing[0] / len(was)
    return Measurement(difference, p_value, abs(difference))
