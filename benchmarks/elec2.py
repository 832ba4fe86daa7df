"""Elec2, the classic stream with concept drift: will New South Wales' electricity price be up or down? Test, then
train, in order of time; trained anew where errors have grown.

The class says whether the price is above its mean of the last day, so a feature of just that would give it away (it is
right in 99.7 % of cases). Ours are the row's own columns and what is different from earlier rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from benchmarks._real import real
from city.arrays import Floats
from city.models.prequential import live

BLOCK = 48  # a day of half hours
MEMORY, WATCH = 6_000, 96
PUBLISHED = {"no change": 0.8533, "leveraging bagging": 0.862}
_DIFFERENCES = (1, 2, 48)
_LABELS = (1, 2, 48, 336)


def run(tell: Callable[[str], None]) -> dict[str, Any]:
    """Accuracy over the whole stream but its first day, beside that of "as half an hour ago"."""
    stream = pl.read_csv(real("elec2/elec.csv"))
    y = stream["class"].to_numpy().astype(float)
    price, demand = pl.col("nswprice"), pl.col("nswdemand")
    x = (
        stream.select(
            *("period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"),
            *(pl.col("class").shift(k).alias(f"class_{k}") for k in _LABELS),
            *((price - price.shift(k)).alias(f"price_change_{k}") for k in _DIFFERENCES),
            *((demand - demand.shift(k)).alias(f"demand_change_{k}") for k in (1, 48)),
            pl.col("class").shift(1).rolling_mean(48).alias("class_mean"),
        )
        .fill_null(0)
        .to_numpy()
        .astype(float)
    )
    life = live(x, y, _fit, block=BLOCK, memory=MEMORY, watch=WATCH)
    judged = ~np.isnan(life.predicted)
    tell(f"trained {len(life.trained_at)} times over {len(y):,} half hours")
    same = np.append(False, y[1:] == y[:-1])
    once = _fit(x[:MEMORY], y[:MEMORY]).predict(x[MEMORY:])
    return {
        "bench": "elec2",
        "accuracy": round(float((life.predicted[judged] == y[judged]).mean()), 4),
        "no_change_accuracy": round(float(same[1:].mean()), 4),
        "retrainings": len(life.trained_at) - 1,
        "accuracy_trained_once": round(float((once == y[MEMORY:]).mean()), 4),
        "published": PUBLISHED,
    }


def _fit(x: Floats, y: Floats) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=15, random_state=0).fit(x, y)
