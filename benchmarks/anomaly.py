"""Anomalies of a water pump's signals by SKAB's protocol: of each run the first 400 rows are normal and fitted on, the
rest are scored in order, a row at a time, as the stream does."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks._real import real
from city_assets.equipment.models import AnomalyDetector

NORMAL_ROWS = 400
_NOT_SIGNALS = ("datetime", "anomaly", "changepoint")
PUBLISHED = {"Conv-AE": 0.78, "MSET": 0.78, "T²+Q": 0.76, "LSTM-AE": 0.74, "isolation forest": 0.29}


def run(tell: Callable[[str], None], data: Path | None = None) -> dict[str, Any]:
    """F1, false and missed alarm rates over all runs of a folder (of SKAB's, where none is given), and the time that
    an event takes."""
    folder = data or real("skab")
    files = [file for file in sorted(folder.rglob("*.csv")) if "anomaly-free" not in file.name]
    if not files:
        raise FileNotFoundError(f"no runs of SKAB in {folder}")
    labels, alarms, seconds = [], [], []
    for file in files:
        rows = pl.read_csv(file, separator=";")
        signals = rows.drop(_NOT_SIGNALS, strict=False).cast(pl.Float64).to_numpy()
        detector = AnomalyDetector().fit(signals[:NORMAL_ROWS])
        for row in signals[NORMAL_ROWS:]:
            began = time.perf_counter()
            score, _ = detector.watch(row)
            seconds.append(time.perf_counter() - began)
            alarms.append(score > detector.threshold)
        labels.append(rows["anomaly"].to_numpy()[NORMAL_ROWS:] > 0)
        tell(f"{file.relative_to(folder)}: {len(signals):,} rows")
    truth, found = np.concatenate(labels), np.array(alarms)
    hits, false, missed = (truth & found).sum(), (~truth & found).sum(), (truth & ~found).sum()
    return {
        "bench": "anomaly",
        "runs": len(files),
        "f1": round(float(2 * hits / (2 * hits + false + missed)), 4),
        "far": round(float(false / (~truth).sum()), 4),
        "mar": round(float(missed / truth.sum()), 4),
        "p99_ms": round(float(np.quantile(seconds, 0.99)) * 1000, 3),
        "published_f1": PUBLISHED,
    }
