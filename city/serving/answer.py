"""What a model's numbers say, for one caller: as `city.models.predictions.answers` says it of frames."""

import math
from bisect import bisect_left
from typing import Any, NamedTuple

from city.models.anomaly import SCORE, SHARES
from city.models.exported import Calibration
from city.models.model import Model
from city.models.predictions import ANOMALY, NORMAL


class Answer(NamedTuple):
    """`prediction` is a number, a class, or normal or anomaly; `output` the model's own numbers."""

    prediction: float | str
    confidence: float | None
    low: float | None
    high: float | None
    output: list[float]


def answer(model: Model, calibration: Calibration, output: list[float]) -> Answer:
    """One row's answer. Raises ArithmeticError where a model says no number."""
    if not all(map(math.isfinite, output)):
        raise ArithmeticError(f"{model.name} says {output}, which is no number")
    if model.kind == "regression":
        value = output[0]
        if calibration.intervals is None:
            return Answer(value, None, None, None, output)
        half = calibration.intervals.widths[bisect_left(calibration.intervals.edges, value)]
        return Answer(value, None, value - half, value + half, output)
    if model.kind == "anomaly":
        score = output[SCORE]
        likely = score / (1 + score)
        wrong = score > 1
        return Answer(ANOMALY if wrong else NORMAL, likely if wrong else 1 - likely, None, None, output)
    if calibration.threshold is None:
        chosen = max(range(len(output)), key=output.__getitem__)
    else:
        chosen = int(output[1] >= calibration.threshold)
    return Answer(model.label.classes[chosen], output[chosen], None, None, output)


def said(model: Model, given: Answer, probabilities: bool) -> dict[str, Any]:
    """An answer as JSON has it."""
    found: dict[str, Any] = {"prediction": given.prediction}
    if given.confidence is not None:
        found["confidence"] = given.confidence
    if given.low is not None:
        found["interval"] = {"low": given.low, "high": given.high, "coverage": model.coverage}
    if model.label.unit:
        found["unit"] = model.label.unit
    if model.kind == "anomaly":
        found["score"] = given.output[SCORE]
        if probabilities:
            found["contributions"] = dict(zip(model.inputs, given.output[SHARES:], strict=True))
    elif probabilities and model.kind == "classification":
        found["probabilities"] = dict(zip(model.label.classes, given.output, strict=True))
    return found
