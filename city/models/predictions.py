"""Builds the record of a version's predictions and their outcomes, which shows its decay."""

from datetime import datetime

import numpy as np
import polars as pl

from city.arrays import Floats
from city.drift.losses import measure_decay
from city.drift.measures import Measurement
from city.models.anomaly import SCORE
from city.models.examples import inputs, label_rows, labels, select_rows
from city.models.exported import Calibration, Exported
from city.models.judge import losses
from city.models.labels import LABEL
from city.models.model import Model

OUTCOME, PREDICTION, CONFIDENCE, LOSS, VERSION, FOR = "outcome", "prediction", "confidence", "loss", "version", "for"
LOW, HIGH, OUTPUT, LATENCY, ID = "low", "high", "output", "latency_ms", "id"
NORMAL, ANOMALY = "normal", "anomaly"
_ROW = "_row"
JUDGED_ROWS = 500
"""The number of first losses, and of last losses, that are compared to detect decay."""


def predictions(
    model: Model, exported: Exported, version: int, rows: pl.DataFrame, truth: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Predicts for each of the view's rows that the model is about.

    Returns `prediction`, `confidence`, `low` and `high` (see `answers`), and the `outcome` and the `loss` where they
    are known by now. `rows` should include later rows, because outcomes are searched for among them.
    """
    view = model.view
    selected = select_rows(model, rows)
    predicted = (
        exported.predict(inputs(model, selected))
        if selected.height
        else np.empty((0, max(2, len(model.label.classes))))
    )
    answered = pl.concat(
        [
            selected.select(
                *view.entities,
                view.time,
                *record_columns(model, version),
            ),
            answers(model, exported.calibration, predicted, selected),
        ],
        how="horizontal",
    )
    return add_outcomes(model, answered, rows, truth)


def record_columns(model: Model, version: int) -> tuple[pl.Expr, ...]:
    """Returns the columns recorded with each answer: the time that it is for, the version, and the inputs as JSON."""
    return (
        (pl.col(model.view.time) + model.label.ahead).alias(FOR),
        pl.lit(version, pl.Int64).alias(VERSION),
        pl.struct(model.inputs).struct.json_encode().alias("inputs"),
    )


def answers(
    model: Model, calibration: Calibration, predicted: Floats, rows: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Converts a model's output to answers, a row for each row of the output.

    `predicted` is what `Exported.predict` returns. `rows` are the view's rows, whose values of the model's
    `threshold_by` decide which thresholds hold. The columns are: `prediction`, the number, the likeliest class (with
    two classes, the second from the threshold on), or normal or anomaly. `confidence`, the probability of that class;
    for an anomaly of the score s, s / (1 + s), and for a normal row 1 - s / (1 + s). `low` and `high`, the interval of
    a number. `output`, the numbers themselves. `threshold`, that of the row where the model has one.
    """
    count = len(predicted)
    missing = np.full(count, np.nan)
    thresholds = calibration.thresholds_for(model, rows, count)
    confidence, low, high = missing, missing, missing
    if model.kind == "regression":
        predicted = predicted.reshape(count, -1)[:, 0] if count else np.empty(0)  # -1 of no rows is ambiguous
        prediction = [f"{value:.6g}" for value in predicted]
        if calibration.intervals is not None:
            low, high = calibration.intervals.around(predicted)
        output = predicted[:, None]
    elif model.kind == "anomaly":
        score = predicted[:, SCORE]
        prediction = [ANOMALY if wrong else NORMAL for wrong in score > 1]
        likely = score / (1 + score)
        confidence, output = np.where(score > 1, likely, 1 - likely), predicted
    else:
        places = (
            predicted.argmax(1)
            if calibration.threshold is None
            else (predicted[:, 1] >= thresholds.to_numpy()).astype(int)
        )
        prediction = [model.label.classes[n] for n in places]
        confidence, output = predicted[np.arange(count), places], predicted
    numbers = pl.DataFrame({CONFIDENCE: confidence, LOW: low, HIGH: high}, nan_to_null=True)
    return numbers.with_columns(
        pl.Series(PREDICTION, prediction, pl.String),
        pl.Series(OUTPUT, output.tolist() if count else [], pl.List(pl.Float64)),
        thresholds,
    )


def add_outcomes(model: Model, answered: pl.DataFrame, rows: pl.DataFrame, truth: pl.DataFrame | None) -> pl.DataFrame:
    """Adds the `outcome` and the `loss` to answers. They are null where they are not known by now.

    `rows` are the view's rows in which the outcomes are searched for.
    """
    if model.label.truth and truth is None:
        return answered.with_columns(pl.lit(None, pl.String).alias(OUTCOME), pl.lit(None, pl.Float64).alias(LOSS))
    at = [*model.view.entities, model.view.time]
    truths = label_rows(model, rows, truth).select(*at, LABEL).unique(at)
    numbered = answered.with_row_index(_ROW)
    matched = numbered.join(truths, on=at, how="inner", maintain_order="left")
    loss: Floats = np.empty(0)
    if matched.height:
        outputs = np.array(matched[OUTPUT].to_list())
        loss = losses(model, outputs[:, 0] if model.kind == "regression" else outputs, labels(model, matched))
    outcome = matched.select(_ROW, pl.col(LABEL).cast(pl.String).alias(OUTCOME), pl.Series(LOSS, loss, pl.Float64))
    return numbered.join(outcome, on=_ROW, how="left", maintain_order="left").drop(_ROW)


def scores_schema(model: Model) -> dict[str, pl.DataType]:
    """Returns the schema of the table of scores, without its day."""
    return {
        ID: pl.String(),
        **{name: pl.String() for name in model.view.entities},
        model.view.time: pl.Datetime("us", "UTC"),
        FOR: pl.Datetime("us", "UTC"),
        VERSION: pl.Int64(),
        PREDICTION: pl.String(),
        CONFIDENCE: pl.Float64(),
        LOW: pl.Float64(),
        HIGH: pl.Float64(),
        OUTPUT: pl.List(pl.Float64()),
        LATENCY: pl.Float64(),
        "inputs": pl.String(),
    }


def schema(model: Model) -> dict[str, pl.DataType]:
    """Returns the schema of the table of predictions, without its day."""
    return {**scores_schema(model), OUTCOME: pl.String(), LOSS: pl.Float64()}


def decay(
    model: Model, recorded: pl.DataFrame, version: int, since: datetime, rows: int = JUDGED_ROWS
) -> Measurement | None:
    """Tests whether the version's last `rows` losses are larger than its first after `since`, when it was trained.

    Returns None while there are fewer than twice `rows` losses.
    """
    time = model.view.time
    judged = recorded.filter(pl.col(VERSION) == version, pl.col(LOSS).is_not_null(), pl.col(time) > since).sort(time)
    return measure_decay(judged[LOSS].to_numpy(), rows)
