"""Measures how good a version is since it was trained, from its recorded predictions and their outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from city.drift.measures import Measurement
from city.drift.monitor import Thresholds
from city.models.judge import calibration_error
from city.models.model import Model
from city.models.predictions import CONFIDENCE, HIGH, LATENCY, LOSS, LOW, OUTCOME, PREDICTION
from city.models.registry import Version

CALIBRATED, COVERS, LASTING = "calibrated", "covers", "lasting"
LEAST = 500
"""The number of outcomes that a verdict needs."""
_CALIBRATION, _COVERAGE = 0.15, 0.1
YOUNG = timedelta(days=1)
"""The age of a young model. Its versions have not learned from a whole day, so their errors are no fault."""


@dataclass(frozen=True)
class Verdict:
    """Whether a version keeps one promise of its model."""

    name: str
    passed: bool | None
    """None where there is nothing to judge by."""
    description: str


def performance(model: Model, judged: pl.DataFrame) -> dict[str, float]:
    """Computes the metrics of predictions with outcomes (columns as `city.models.predictions.schema`), by name.

    A regression has `mae` and, where there are intervals, `coverage`. A classification has `accuracy`, macro
    `precision`, `recall` and `f1`, and `calibration_error`. An anomaly model has `surprise`. All have `outcomes`, the
    number of outcomes, and `latency_p95_ms` where it was recorded. Returns no metrics where there are no outcomes.
    """
    with_outcome = judged.drop_nulls(LOSS)
    if with_outcome.is_empty():
        return {}
    metrics = {"outcomes": float(with_outcome.height)}
    latency = with_outcome[LATENCY].quantile(0.95)
    if latency is not None:
        metrics["latency_p95_ms"] = latency
    if model.kind == "anomaly":
        return metrics | {"surprise": float(np.asarray(with_outcome[LOSS]).mean())}
    if model.kind == "regression":
        metrics["mae"] = float(np.asarray(with_outcome[LOSS]).mean())
        intervals = with_outcome.drop_nulls([LOW, HIGH])
        if intervals.height:
            actual = intervals[OUTCOME].cast(pl.Float64)
            metrics["coverage"] = float(np.asarray(actual.is_between(intervals[LOW], intervals[HIGH])).mean())
        return metrics
    counts = with_outcome.group_by(PREDICTION, OUTCOME).len().iter_rows()
    is_right = (with_outcome[PREDICTION] == with_outcome[OUTCOME]).cast(pl.Float64).to_numpy()
    confidence = with_outcome[CONFIDENCE].fill_null(0.0).to_numpy()
    return (
        metrics
        | classification_scores({(prediction, outcome): count for prediction, outcome, count in counts})
        | {"calibration_error": calibration_error(confidence, is_right)}
    )


def classification_scores(counts: Mapping[tuple[str, str], int]) -> dict[str, float]:
    """Computes `accuracy`, and the macro means of `precision`, `recall` and `f1`.

    `counts` is the number of rows of each (prediction, outcome). There must be at least one. The means are over all
    classes that were predicted or are outcomes. A class without predictions has precision 0, a class without outcomes
    has recall 0. The definitions are those of scikit-learn, which is not used because it takes 80 MB in each hourly
    run.
    """
    by_class = {name: [0, 0, 0] for pair in counts for name in pair}  # right, predicted, actual
    for (prediction, outcome), count in counts.items():
        by_class[prediction][0] += count if prediction == outcome else 0
        by_class[prediction][1] += count
        by_class[outcome][2] += count
    each = [
        (right / max(predicted, 1), right / max(actual, 1), 2 * right / (predicted + actual))
        for right, predicted, actual in by_class.values()
    ]
    precision, recall, f1 = (sum(values) / len(each) for values in zip(*each, strict=True))
    accuracy = sum(right for right, _, _ in by_class.values()) / sum(counts.values())
    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}


def verdicts(
    model: Model, metrics: dict[str, float], coverage: float | None, decay: Measurement | None, young: bool = False
) -> list[Verdict]:
    """Judges whether a version keeps each promise of its model.

    `metrics` are those of `performance`. `coverage` is that of the version's intervals, `decay` the comparison of its
    first losses with its last. A `young` model, or a model with few outcomes, is not judged.
    """
    few = young or metrics.get("outcomes", 0.0) < LEAST
    limits = Thresholds()
    judgements = []
    if model.kind == "classification":
        error = metrics.get("calibration_error")
        text = "too few outcomes" if error is None else f"confidences are {error:.3f} from frequencies, on average"
        judgements.append(Verdict(CALIBRATED, None if few or error is None else error <= _CALIBRATION, text))
    if model.kind == "regression":
        share = metrics.get("coverage")
        text = "too few outcomes" if share is None else f"intervals hold {share:.1%} of outcomes"
        passed = None if few or share is None or coverage is None else share >= coverage - _COVERAGE
        judgements.append(Verdict(COVERS, passed, text + (f", promised {coverage:.0%}" if coverage else "")))
    lasting = None
    if decay is not None and not young:
        lasting = decay.p_value > limits.alpha or decay.effect < limits.effects["losses"]
    text = "too few outcomes" if decay is None else f"losses have grown by {decay.effect:.2f} standard deviations"
    judgements.append(Verdict(LASTING, lasting, text))
    return judgements


def promises(model: Model) -> Sequence[str]:
    """Lists the names of a model's verdicts."""
    return [verdict.name for verdict in verdicts(model, {}, None, None)]


def is_young(versions: Sequence[Version], now: datetime) -> bool:
    """Whether a model's first version was trained less than a day ago."""
    return now - min(datetime.fromisoformat(version.tags["trained_at"]) for version in versions) < YOUNG
