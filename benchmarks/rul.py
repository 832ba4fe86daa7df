"""Remaining useful life of NASA's turbofan engines (C-MAPSS FD001): the last cycle of each test engine.

Everything is fitted and chosen on the training engines; intervals come from cross-validation over whole engines.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._real import real
from city.arrays import Floats
from city.models.conformal import intervals
from city_assets.equipment.models import CAP, life_features, nasa_score, remaining_life

FOLDS = 10
COVERAGE = 0.9
_SAMPLES = 2_000
_UNIT, _SIGNALS = 0, slice(5, None)
PUBLISHED = {
    "random forest": 17.9,
    "LSTM": 16.1,
    "deep CNN": 12.6,
    "best transformers": 10.6,
}


def run(tell: Callable[[str], None]) -> dict[str, Any]:
    """RMSE and NASA's score with the true life capped at 125, the coverage of 90 % intervals, and a bootstrap over
    test engines."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GroupKFold, cross_val_predict

    warnings.simplefilter("ignore", ConvergenceWarning)  # to stop early is part of how the network generalises
    train, test = (np.loadtxt(real(f"cmapss/{name}_FD001.txt")) for name in ("train", "test"))
    left = np.loadtxt(real("cmapss/RUL_FD001.txt"))
    signals = [s for s in range(train.shape[1])[_SIGNALS] if len(np.unique(train[:, s])) > 2]
    mean, scale = train[:, signals].mean(0), train[:, signals].std(0)
    features, target, engine = [], [], []
    for number in np.unique(train[:, _UNIT]):
        rows = life_features((train[train[:, _UNIT] == number][:, signals] - mean) / scale)
        features.append(rows)
        target.append(np.minimum(np.arange(len(rows))[::-1], CAP))
        engine.append(np.full(len(rows), number))
    x, y, groups = np.vstack(features), np.concatenate(target).astype(float), np.concatenate(engine)
    tell(f"{len(features)} training engines, {len(x):,} cycles, {x.shape[1]} features")
    held_out = _capped(cross_val_predict(remaining_life(), x, y, groups=groups, cv=GroupKFold(FOLDS)))
    tell(f"cross-validated over engines: RMSE {_rmse(held_out, y):.2f}")
    around = intervals(held_out, y, groups, COVERAGE)
    model = remaining_life().fit(x, y)
    units = np.unique(test[:, _UNIT])
    last = [life_features((test[test[:, _UNIT] == n][:, signals] - mean) / scale)[-1] for n in units]
    predicted = _capped(model.predict(np.array(last)))
    capped = np.minimum(left, CAP)
    low, high = around.around(predicted)
    chance = np.random.default_rng(0)
    picks = chance.integers(0, len(left), (_SAMPLES, len(left)))
    bootstrap = np.sqrt(((predicted - capped)[picks] ** 2).mean(1))
    return {
        "bench": "rul",
        "engines": len(left),
        "rmse": round(_rmse(predicted, capped), 2),
        "rmse_low": round(float(np.quantile(bootstrap, 0.025)), 2),
        "rmse_high": round(float(np.quantile(bootstrap, 0.975)), 2),
        "score": round(nasa_score(predicted, capped), 1),
        "rmse_uncapped": round(_rmse(predicted, left), 2),
        "rmse_cross_validated": round(_rmse(held_out, y), 2),
        "coverage_90": round(float(((capped >= low) & (capped <= high)).mean()), 3),
        "interval_mean_width": round(float((high - low).mean()), 1),
        "published_rmse": PUBLISHED,
    }


def _capped(life: Floats) -> Floats:
    return np.clip(life, 0, CAP)


def _rmse(predicted: Floats, actual: Floats) -> float:
    return float(np.sqrt(np.mean((predicted - actual) ** 2)))
