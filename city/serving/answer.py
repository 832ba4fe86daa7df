"""Turns a model's output into answers: of one row, and of the rows of a batch."""

import math
from bisect import bisect_left
from datetime import datetime
from typing import NamedTuple

import polars as pl

from city.arrays import Floats
from city.models.anomaly import SCORE, SHARES
from city.models.exported import Calibration
from city.models.model import Model
from city.models.predictions import ANOMALY, NORMAL, answers
from city.serving.batching import Rows
from city.serving.responses import AnswerFields
from city.serving.versions import Served
from city.web.keys import Caller


class Answer(NamedTuple):
    """A model's answer for one row. `prediction` is a number, a class, or normal or anomaly. `confidence` is None where
    the model gives none; `low` and `high` are None where it gives no interval. `output` is the model's own numbers."""

    prediction: float | str
    confidence: float | None
    low: float | None
    high: float | None
    output: list[float]


def answer(model: Model, calibration: Calibration, output: list[float]) -> Answer:
    """Interprets the model's `output` for one row. Raises ArithmeticError for an output that is not finite."""
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


def answer_json(model: Model, result: Answer, probabilities: bool) -> AnswerFields:
    """Returns the answer's fields of a JSON response. With `probabilities` a classifier's response has each class's
    probability, and an anomaly detector's each input's contribution."""
    response: AnswerFields = {"prediction": result.prediction}
    if result.confidence is not None:
        response["confidence"] = result.confidence
    if result.low is not None and result.high is not None:
        response["interval"] = {"low": result.low, "high": result.high, "coverage": model.coverage}
    if model.label.unit:
        response["unit"] = model.label.unit
    if model.kind == "anomaly":
        response["score"] = result.output[SCORE]
        if probabilities:
            response["contributions"] = contributions(model, result)
    elif probabilities and model.kind == "classification":
        response["probabilities"] = dict(zip(model.label.classes, result.output, strict=True))
    return response


def contributions(model: Model, result: Answer) -> dict[str, float]:
    """Returns each input's share in an anomaly detector's answer, by name."""
    return dict(zip(model.inputs, result.output[SHARES:], strict=True))


def build_frames(
    served: Served,
    rows: Rows,
    output: Floats,
    first: str,
    at: datetime,
    caller: Caller,
    entity: str | None,
    took: float,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Builds the answers to rows (n, inputs) as a frame, and the same answers with the further columns of the record.
    Ids begin with `first`. `took` is the duration of the run in seconds."""
    model = served.model
    answered = answers(model, served.exported.calibration, output).with_columns(
        pl.format(f"{first}.{{}}", pl.int_range(pl.len())).alias("id"), pl.lit(served.number).alias("version")
    )
    inputs = pl.from_numpy(rows, list(model.inputs)).with_columns(pl.all().fill_nan(None))
    recorded = answered.with_columns(
        pl.lit(at).alias("at"),
        pl.lit("champion").alias("role"),
        pl.lit(caller.name).alias("caller"),
        pl.lit(entity, pl.String).alias("entity"),
        inputs.select(pl.struct(pl.all()).struct.json_encode()).to_series().alias("inputs"),
        pl.lit(took * 1000).alias("latency_ms"),
        pl.lit(False).alias("cached"),
        pl.lit(None, pl.String).alias("experiment"),
    )
    return answered, recorded
