"""Remaining useful life of NASA's turbofan engines (C-MAPSS) by the served model: the last cycle of each test engine.

The rows of the files go through a source, a contract and the platform's feature transform. The model is the declared
model of the remaining life, for a fleet of turbofans. Everything is fitted and chosen on the training engines. The
intervals are calibrated on all cycles of the training engines, predicted by estimators of other engines (five folds),
at each level of the prediction.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks._cmapss import CAP, FEATURES, TEST_BEGIN, TURBOFAN, load_engines
from benchmarks._real import real
from benchmarks._served import judge_by_protocol, on_public_data
from city.arrays import Floats
from city.models.examples import inputs, select_rows
from city.models.exported import Exported
from city.models.predictions import answers
from city_assets.equipment.life import life_model

MODEL = on_public_data(
    life_model(TURBOFAN, "turbofan_life", FEATURES.name, "silver/maintenance_log", "turbofan-predictions"), FEATURES
)
_SAMPLES = 2_000
PUBLISHED = {
    "FD001": {"random forest": 17.9, "LSTM": 16.1, "deep CNN": 12.6, "best transformers": 10.6},
    "FD002": {"random forest": 29.6, "LSTM": 24.5, "deep CNN": 22.4},
    "FD003": {"random forest": 20.3, "LSTM": 16.2, "deep CNN": 12.6},
    "FD004": {"random forest": 31.1, "LSTM": 28.2, "deep CNN": 23.3},
}
"""RMSE in cycles with the true life capped at 125 (130 for the LSTM): random forest, Zhang et al. 2017; LSTM, Zheng et
al. 2017; deep CNN, Li et al. 2018."""


def run(tell: Callable[[str], None], data: Path | None = None, subset: str = "FD001") -> dict[str, Any]:
    """Judges the model on a subset of C-MAPSS in the folder `data` (by default, that of CITY_DATA_DIR).

    Returns RMSE and NASA's score with the true life capped at 125 and as it is, a bootstrap over test engines, and how
    often the 90 % intervals have the capped life.
    """
    engines = load_engines(data or real("cmapss"), subset, tell)
    fitted = judge_by_protocol(MODEL, engines.features, TEST_BEGIN, truth=engines.log, validation=0, tell=tell)
    last = engines.features.filter(pl.col("timestamp") >= TEST_BEGIN).group_by("machine_id").last()
    messages = predict(fitted.exported, last).join(engines.left, on="machine_id", maintain_order="left")
    predicted, left = (messages[name].to_numpy() for name in ("remaining_life", "cycles"))
    low, high = (messages["remaining_life_interval"].list.get(end).to_numpy() for end in (0, 1))
    capped = np.minimum(left, CAP)
    chance = np.random.default_rng(0)
    picks = chance.integers(0, len(left), (_SAMPLES, len(left)))
    bootstrap = np.sqrt(((predicted - capped)[picks] ** 2).mean(1))
    return {
        "bench": "rul",
        "subset": subset,
        "engines": len(left),
        "conditions": engines.conditions,
        "rmse": round(_rmse(predicted, capped), 2),
        "rmse_low": round(float(np.quantile(bootstrap, 0.025)), 2),
        "rmse_high": round(float(np.quantile(bootstrap, 0.975)), 2),
        "score": round(nasa_score(predicted, capped), 1),
        "rmse_uncapped": round(_rmse(predicted, left), 2),
        "score_uncapped": round(nasa_score(predicted, left), 1),
        "coverage_90": round(float(((capped >= low) & (capped <= high)).mean()), 3),
        "interval_mean_width": round(float((high - low).mean()), 1),
        "published_rmse": PUBLISHED.get(subset, {}),
    }


def predict(exported: bytes, rows: pl.DataFrame) -> pl.DataFrame:
    """Returns the messages that the stream would send of feature rows, by the exported model."""
    model, selected = Exported(MODEL, exported), select_rows(MODEL, rows)
    answered = answers(MODEL, model.calibration, model.predict(inputs(MODEL, selected)))
    none = pl.lit(None, pl.Struct(dict.fromkeys(MODEL.inputs, pl.Float64()))).alias("contributions")
    assert MODEL.stream is not None
    return MODEL.stream.message(pl.concat([selected, answered], how="horizontal").with_columns(none))


def nasa_score(predicted: Floats, actual: Floats) -> float:
    """Computes the score of the PHM 2008 challenge, in which late predictions cost more than early ones.

    `predicted` and `actual` (n,) are remaining lives in cycles. Source: Saxena et al., 2008.
    """
    late = predicted - actual
    return float(np.where(late < 0, np.expm1(-late / 13), np.expm1(late / 10)).sum())


def _rmse(predicted: Floats, actual: Floats) -> float:
    return float(np.sqrt(np.mean((predicted - actual) ** 2)))
