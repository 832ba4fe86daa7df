"""Turns a model's output for one row into an answer."""

import math
from bisect import bisect_left
from typing import NamedTuple

from city.models.anomaly import SCORE, SHARES
from city.models.exported import Calibration
from city.models.model import Model
from city.models.predictions import ANOMALY, NORMAL
from city.serving.responses import AnswerFields


class Answer(NamedTuple):
    """A model's answer for one row. `prediction` is a number, a class, or normal or anomaly. `confidence` is None where
    the model gives none; `low` and `high` are None where it gives no interval. `output` is the model's own numbers."""

    prediction: float | str
    confidence: float | None
    low: float | None
    high: float | None
    output: list[float]
    threshold: float | None = None
    """The probability from which on the second class is predicted, where the model has one."""


def interpret_output(
    model: Model, calibration: Calibration, output: list[float], category: str | None = None
) -> Answer:
    """Interprets the model's `output` for one row. `category` is the row's value of the model's `threshold_by`. Raises
    ArithmeticError for an output that is not finite."""
    if not all(map(math.isfinite, output)):
        raise ArithmeticError(f"{model.name} says {output}, which is no number")
    if model.kind == "regression":
        value = output[0]
        if calibration.intervals is None:
            return Answer(value, None, None, None, output)
        half_width = calibration.intervals.widths[bisect_left(calibration.intervals.edges, value)]
        return Answer(value, None, value - half_width, value + half_width, output)
    if model.kind == "anomaly":
        score = output[SCORE]
        probability = score / (1 + score)
        if score > 1:
            return Answer(ANOMALY, probability, None, None, output)
        return Answer(NORMAL, 1 - probability, None, None, output)
    threshold = calibration.threshold_for(category)
    likeliest = max(range(len(output)), key=output.__getitem__)
    index = likeliest if threshold is None else int(output[1] >= threshold)
    return Answer(model.label.classes[index], output[index], None, None, output, threshold)


def answer_fields(model: Model, answer: Answer, probabilities: bool) -> AnswerFields:
    """Returns the answer's fields of a JSON response. With `probabilities` a classifier's response has each class's
    probability, and an anomaly detector's each input's contribution."""
    response: AnswerFields = {"prediction": answer.prediction}
    if answer.confidence is not None:
        response["confidence"] = answer.confidence
    if answer.low is not None and answer.high is not None:
        response["interval"] = {"low": answer.low, "high": answer.high, "coverage": model.coverage}
    if answer.threshold is not None:
        response["threshold"] = answer.threshold
    if model.label.unit:
        response["unit"] = model.label.unit
    if model.kind == "anomaly":
        response["score"] = answer.output[SCORE]
        if probabilities:
            response["contributions"] = contributions(model, answer)
    elif probabilities and model.kind == "classification":
        response["probabilities"] = dict(zip(model.label.classes, answer.output, strict=True))
    return response


def contributions(model: Model, answer: Answer) -> dict[str, float]:
    """Returns each input's share in an anomaly detector's answer, by name."""
    return dict(zip(model.inputs, answer.output[SHARES:], strict=True))
