"""How good a version is at what has come since: from its predictions and their outcomes, as they are recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from city.drift.measures import Measured
from city.drift.monitor import Thresholds
from city.models.judge import calibration_error
from city.models.model import Model
from city.models.predictions import CONFIDENCE, HIGH, LATENCY, LOSS, LOW, OUTCOME, PREDICTION
from city.models.registry import Version

CALIBRATED, COVERS, LASTING = "calibrated", "covers", "lasting"
LEAST = 500
"""Outcomes; of fewer nothing is said."""
_VERSION = "version"
_CALIBRATION, _COVERAGE = 0.15, 0.1
YOUNG = timedelta(days=1)
"""A model's versions of its first day have not seen a day: what they miss is no fault."""


@dataclass(frozen=True)
class Verdict:
    """Whether a version holds what it promised, in one respect."""

    name: str
    passed: bool | None
    """None where nothing can be said."""
    says: str


def performance(model: Model, judged: pl.DataFrame) -> dict[str, float]:
    """The metrics of predictions with outcomes (columns as `city.models.predictions.schema`): `mae` and, where there
    are intervals, `coverage`; or `accuracy`, macro `precision`, `recall` and `f1`, and `calibration_error`. And
    `outcomes`, how many there are; `latency_p95_ms` where it was recorded. Nothing where there are none."""
    known = judged.drop_nulls(LOSS)
    if known.is_empty():
        return {}
    found = {"outcomes": float(known.height)}
    latency = known[LATENCY].quantile(0.95)
    if latency is not None:
        found["latency_p95_ms"] = latency
    if model.kind == "anomaly":
        return found | {"surprise": float(np.asarray(known[LOSS]).mean())}
    if model.kind == "regression":
        found["mae"] = float(np.asarray(known[LOSS]).mean())
        intervals = known.drop_nulls([LOW, HIGH])
        if intervals.height:
            actual = intervals[OUTCOME].cast(pl.Float64)
            found["coverage"] = float(np.asarray(actual.is_between(intervals[LOW], intervals[HIGH])).mean())
        return found
    counts = known.group_by(PREDICTION, OUTCOME).len().iter_rows()
    right = (known[PREDICTION] == known[OUTCOME]).cast(pl.Float64).to_numpy()
    confidence = known[CONFIDENCE].fill_null(0.0).to_numpy()
    return (
        found
        | classification_scores({(said, came): count for said, came, count in counts})
        | {"calibration_error": calibration_error(confidence, right)}
    )


def classification_scores(counts: Mapping[tuple[str, str], int]) -> dict[str, float]:
    """`accuracy`, and `precision`, `recall` and `f1`, each the mean over all classes that were predicted or came; 0
    where one is of nothing. `counts` says how often each (prediction, outcome) came; there must be one.
    As scikit-learn has them, which is 80 MB for each hourly run."""
    of_class = {name: [0, 0, 0] for pair in counts for name in pair}  # right, predicted, came
    for (said, came), count in counts.items():
        of_class[said][0] += count if said == came else 0
        of_class[said][1] += count
        of_class[came][2] += count
    each = [
        (right / max(said, 1), right / max(came, 1), 2 * right / (said + came))
        for right, said, came in of_class.values()
    ]
    precision, recall, f1 = (sum(values) / len(each) for values in zip(*each, strict=True))
    accuracy = sum(right for right, _, _ in of_class.values()) / sum(counts.values())
    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}


def verdicts(
    model: Model, found: dict[str, float], coverage: float | None, decay: Measured | None, young: bool = False
) -> list[Verdict]:
    """What is promised of a model, and whether it is held. `coverage` is that of its intervals, `decay` the comparison
    of its first losses with its last. Of a `young` model, or few outcomes, nothing is said."""
    few = young or found.get("outcomes", 0.0) < LEAST
    limits = Thresholds()
    said = []
    if model.kind == "classification":
        error = found.get("calibration_error")
        text = "too few outcomes" if error is None else f"confidences are {error:.3f} from frequencies, on average"
        said.append(Verdict(CALIBRATED, None if few or error is None else error <= _CALIBRATION, text))
    if model.kind == "regression":
        share = found.get("coverage")
        text = "too few outcomes" if share is None else f"intervals hold {share:.1%} of outcomes"
        held = None if few or share is None or coverage is None else share >= coverage - _COVERAGE
        said.append(Verdict(COVERS, held, text + (f", promised {coverage:.0%}" if coverage else "")))
    lasts = None
    if decay is not None and not young:
        lasts = decay.p_value > limits.alpha or decay.effect < limits.effects["losses"]
    text = "too few outcomes" if decay is None else f"losses have grown by {decay.effect:.2f} standard deviations"
    said.append(Verdict(LASTING, lasts, text))
    return said


def promises(model: Model) -> Sequence[str]:
    """The names of a model's verdicts."""
    return [verdict.name for verdict in verdicts(model, {}, None, None)]


def is_young(versions: Sequence[Version], now: datetime) -> bool:
    """Whether a model's first version was trained less than a day ago."""
    return now - min(datetime.fromisoformat(version.tags["trained_at"]) for version in versions) < YOUNG


def told(model: str, version: int, found: dict[str, float]) -> dict[str, float | None]:
    """The metrics of a version as rules have them: `model.<metric>.<model>`, and `model.version.<model>`."""
    return {f"model.{name}.{model}": value for name, value in {**found, _VERSION: float(version)}.items()}


def of_model(metrics: Mapping[str, float | None], model: str, version: int) -> dict[str, float]:
    """The metrics of a version among those that `told` has made; none where they are of another version."""
    if metrics.get(f"model.{_VERSION}.{model}") != version:
        return {}
    names = {key: key.split(".", 2)[1] for key in metrics if key.split(".", 2)[2:] == [model]}
    return {name: value for key, name in names.items() if name != _VERSION and (value := metrics[key]) is not None}
