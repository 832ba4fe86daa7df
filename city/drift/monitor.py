"""A reference window, against which later ones are held: feature by feature, and as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from polars import selectors as cs

from city.arrays import Floats
from city.drift import measures
from city.drift.measures import Measured

MISSING, CORRELATION, CHI_SQUARE = "missing", "correlation", "chi_square"
COMPARISON: dict[str, pl.DataType] = {
    "feature": pl.String(),
    "measure": pl.String(),
    "statistic": pl.Float64(),
    "p_value": pl.Float64(),
    "effect": pl.Float64(),
    "drifted": pl.Boolean(),
}
"""The columns of a comparison, whatever the types of the columns that are compared."""


@dataclass(frozen=True)
class Thresholds:
    """When a difference is drift: improbable, after correction for how many were looked at, and large enough to
    matter."""

    alpha: float = 0.01
    """The share of windows in which a measure may cry wolf though nothing has changed."""
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
    """The least effect of each measure. PSI under 0.1 is commonly called stable; KL and JS are a half and an eighth of
    it where changes are small."""


@dataclass(frozen=True)
class Monitor:
    """Compares windows with a pinned reference of numeric and categorical columns."""

    reference: pl.DataFrame
    thresholds: Thresholds = Thresholds()

    def compare(self, current: pl.DataFrame) -> pl.DataFrame:
        """A row for each feature (each pair of features, for correlation) and measure: `feature`, `measure`,
        `statistic`, `p_value` (corrected by Benjamini and Hochberg within the measure), `effect` and `drifted`, as
        `COMPARISON` types them.

        Raises ValueError that names the columns that either lacks, or where either has no rows.
        """
        if missing := sorted(set(self.reference.columns) - set(current.columns)):
            raise ValueError(f"the current window lacks {', '.join(missing)}, which the reference has")
        if not (self.reference.height and current.height):
            raise ValueError("a window without rows cannot be compared")
        numeric = self.reference.select(cs.numeric() | cs.boolean()).columns
        found: dict[str, dict[str, Measured]] = {name: {} for name in [*measures.NUMERIC, CHI_SQUARE, MISSING]}
        for name in self.reference.columns:
            was, now = self.reference[name], current[name]
            found[MISSING][name] = _missing(was, now)
            if name in numeric:
                pair = _pair(was, now)
                for measure, of in measures.NUMERIC.items():
                    found[measure][name] = of(*pair)
            else:
                found[CHI_SQUARE][name] = measures.chi_square(was.to_numpy(), now.to_numpy())
        found[CORRELATION] = self._correlations(numeric, current)
        return pl.concat([self._judged(measure, of) for measure, of in found.items()])

    def _correlations(self, numeric: list[str], current: pl.DataFrame) -> dict[str, Measured]:
        if len(numeric) < 2:
            return {}
        # Feature by feature: in one matrix of all of them the types of the others would decide how each is compared.
        features = [_pair(self.reference[name], current[name]) for name in numeric]
        was, now = (np.column_stack(columns) for columns in zip(*features, strict=True))
        p_values, differences = measures.correlations(was, now)
        pairs = [f"{a} × {b}" for i, a in enumerate(numeric) for b in numeric[i + 1 :]]
        return {p: Measured(float(d), float(v), float(d)) for p, v, d in zip(pairs, p_values, differences, strict=True)}

    def _judged(self, measure: str, found: Mapping[str, Measured]) -> pl.DataFrame:
        from scipy import stats

        if not found:
            return pl.DataFrame(schema=COMPARISON)
        p_values = stats.false_discovery_control([m.p_value for m in found.values()])
        effects = [m.effect for m in found.values()]
        return pl.DataFrame(
            {
                "feature": list(found),
                "measure": [measure] * len(found),
                "statistic": [m.statistic for m in found.values()],
                "p_value": p_values,
                "effect": effects,
                "drifted": [
                    bool(p <= self.thresholds.alpha and e >= self.thresholds.effects[measure])
                    for p, e in zip(p_values, effects, strict=True)
                ],
            },
            schema=COMPARISON,
        )


def _pair(was: pl.Series, now: pl.Series) -> tuple[Floats, Floats]:
    """Both samples of a feature as float64, NaN where a value is missing, rounded to the precision that both have."""
    columns = [(s if s.dtype.is_float() else s.cast(pl.Float64)).fill_null(np.nan).to_numpy() for s in (was, now)]
    return measures.to_common_precision(*columns)


def _missing(was: pl.Series, now: pl.Series) -> Measured:
    """Whether another share of values is missing (null, or not a number)."""
    from scipy import stats

    gone = [int((s.fill_nan(None) if s.dtype.is_float() else s).null_count()) for s in (was, now)]
    table = [[gone[0], len(was) - gone[0]], [gone[1], len(now) - gone[1]]]
    p_value = float(stats.fisher_exact(table).pvalue) if sum(gone) else 1.0
    difference = gone[1] / len(now) - gone[0] / len(was)
    return Measured(difference, p_value, abs(difference))
