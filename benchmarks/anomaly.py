"""Anomalies of SKAB's pump by the served model: of each run the first 400 rows are normal, and the rest are scored.

The rows of the files go through a source, a contract and the platform's feature transform. The model is the declared
model of anomalies, for a rig that is watched from its start on. It is fitted on each run's own normal rows, and the
exported model scores the others. No parameter is chosen on these runs: see `benchmarks._injected`.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks._injected import alarms_of, faulty_runs
from benchmarks._real import real
from benchmarks._rig import FEATURES, RIG, load_run
from benchmarks._served import judge_by_protocol, on_public_data
from city.models.anomaly import SCORE
from city.models.examples import inputs
from city.models.exported import Exported
from city.tables.schema import schema
from city_assets.equipment.anomalies import anomaly_model
from city_assets.equipment.tables import MACHINE_FAULTS

MODEL = on_public_data(
    anomaly_model(RIG, "rig_anomaly", FEATURES.name, MACHINE_FAULTS.id, "rig-anomalies", wanders=True), FEATURES
)
NORMAL_ROWS = 400
NO_FAULTS = pl.DataFrame(schema=schema(MACHINE_FAULTS))
_TIMED, _PLACES = 200, 12
PUBLISHED = {"Conv-AE": 0.78, "MSET": 0.78, "T²+Q": 0.76, "LSTM-AE": 0.74, "isolation forest": 0.29}
"""F1 on all 34 runs, by SKAB's leaderboard."""


def run(tell: Callable[[str], None], data: Path | None = None) -> dict[str, Any]:
    """F1, false and missed alarm rates over all scored rows of a folder's runs (of SKAB's, where none is given), and
    the time that the exported model takes for a row. Beside them, those of faults that are injected into anomaly-free
    rows, where the folder has some.

    Raises FileNotFoundError for a folder without runs.
    """
    folder = data or real("skab")
    files = [file for file in sorted(folder.rglob("*.csv")) if "anomaly-free" not in file.name]
    if not files:
        raise FileNotFoundError(f"no runs of SKAB in {folder}")
    truth, alarms, seconds = [], [], []
    for file in files:
        rows = load_run(file)
        fitted = judge_by_protocol(
            MODEL, rows, rows["timestamp"][NORMAL_ROWS], truth=NO_FAULTS, validation=0, tell=lambda line: None
        )
        truth.append(fitted.parts.held_out["is_anomaly"].to_numpy())
        alarms.append(fitted.predicted[:, SCORE] > 1)
        seconds += _seconds(Exported(MODEL, fitted.exported), inputs(MODEL, fitted.parts.held_out[:_TIMED]))
        tell(f"{file.relative_to(folder)}: F1 {rates(truth[-1], alarms[-1])['f1']:.3f} of {rows.height:,} rows")
    return {
        "bench": "anomaly",
        "runs": len(files),
        **rates(np.concatenate(truth), np.concatenate(alarms)),
        "p99_ms": round(float(np.quantile(seconds, 0.99)) * 1000, 3),
        "injected": _injected_rates(folder / "anomaly-free.csv"),
        "published_f1": PUBLISHED,
    }


def rates(truth: NDArray[np.bool_], alarms: NDArray[np.bool_]) -> dict[str, float]:
    """Returns F1, the share of normal rows with an alarm, and that of anomalous rows without one."""
    hits, false, missed = (truth & alarms).sum(), (~truth & alarms).sum(), (truth & ~alarms).sum()
    return {
        "f1": round(float(2 * hits / max(1, 2 * hits + false + missed)), 4),
        "far": round(float(false / max(1, (~truth).sum())), 4),
        "mar": round(float(missed / max(1, truth.sum())), 4),
    }


def _injected_rates(file: Path) -> dict[str, float] | None:
    if not file.exists():
        return None
    runs = list(faulty_runs(MODEL, file, _PLACES))
    return rates(*alarms_of(MODEL, runs))


def _seconds(serving: Exported, rows: NDArray[np.float32]) -> list[float]:
    """Returns the time that each of the rows takes by itself."""
    serving.warm()
    taken = []
    for row in rows:
        began = time.perf_counter()
        serving.predict(row[None])
        taken.append(time.perf_counter() - began)
    return taken
