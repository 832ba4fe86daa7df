"""What a version predicted, and what came: the record that decay is seen in."""

from datetime import datetime

import numpy as np
import polars as pl

from city.arrays import Floats
from city.drift.losses import decayed
from city.drift.measures import Measured
from city.models.anomaly import SCORE
from city.models.examples import chosen, inputs, labelled, labels
from city.models.exported import Calibration, Exported
from city.models.judge import losses
from city.models.labels import LABEL
from city.models.model import Model

OUTCOME, PREDICTION, CONFIDENCE, LOSS, VERSION, FOR = "outcome", "prediction", "confidence", "loss", "version", "for"
LOW, HIGH, OUTPUT, LATENCY, ID = "low", "high", "output", "latency_ms", "id"
NORMAL, ANOMALY = "normal", "anomaly"
_ROW = "_row"
JUDGED_ROWS = 500
"""So many known losses are compared with as many, to see decay."""


def predictions(
    model: Model, exported: Exported, version: int, rows: pl.DataFrame, truth: pl.DataFrame | None = None
) -> pl.DataFrame:
    """For each row of the view what the version says: `prediction`, `confidence`, `low` and `high` (see `answers`),
    and, where it is known by now, the `outcome` and the `loss`.

    The rows may be more than those that are asked for: outcomes are looked for among them.
    """
    view = model.view
    about = chosen(model, rows)
    said = exported.predict(inputs(model, about)) if about.height else np.empty((0, max(2, len(model.label.classes))))
    answered = pl.concat(
        [
            about.select(
                *view.entities,
                view.time,
                *beside(model, version),
            ),
            answers(model, exported.calibration, said),
        ],
        how="horizontal",
    )
    return judged(model, answered, rows, truth)


def beside(model: Model, version: int) -> tuple[pl.Expr, ...]:
    """What is recorded of a view's row with any answer: the time it is for, who said it, and from what."""
    return (
        (pl.col(model.view.time) + model.label.ahead).alias(FOR),
        pl.lit(version, pl.Int64).alias(VERSION),
        pl.struct(model.inputs).struct.json_encode().alias("inputs"),
    )


def answers(model: Model, calibration: Calibration, said: Floats) -> pl.DataFrame:
    """What a model's numbers say, a row each.

    `prediction`: the number, the likeliest class (of two, the second from the threshold on), or normal or anomaly.
    `confidence`: the probability of that class; of an anomaly's score s, s / (1 + s) or the rest of it. `low` and
    `high`: the interval of a number. `output`: the numbers themselves.
    """
    count = len(said)
    nothing = np.full(count, np.nan)
    confidence, low, high = nothing, nothing, nothing
    if model.kind == "regression":
        said = said.reshape(count, -1)[:, 0]
        prediction = [f"{value:.6g}" for value in said]
        if calibration.intervals is not None:
            low, high = calibration.intervals.around(said)
        output = said[:, None]
    elif model.kind == "anomaly":
        score = said[:, SCORE]
        prediction = [ANOMALY if wrong else NORMAL for wrong in score > 1]
        likely = score / (1 + score)
        confidence, output = np.where(score > 1, likely, 1 - likely), said
    else:
        chosen = said.argmax(1) if calibration.threshold is None else (said[:, 1] >= calibration.threshold).astype(int)
        prediction = [model.label.classes[n] for n in chosen]
        confidence, output = said[np.arange(count), chosen], said
    numbers = pl.DataFrame({CONFIDENCE: confidence, LOW: low, HIGH: high}, nan_to_null=True)
    return numbers.with_columns(
        pl.Series(PREDICTION, prediction, pl.String),
        pl.Series(OUTPUT, output.tolist() if count else [], pl.List(pl.Float64)),
    )


def judged(model: Model, answered: pl.DataFrame, rows: pl.DataFrame, truth: pl.DataFrame | None) -> pl.DataFrame:
    """Answers with the `outcome` and the `loss` of each, null where they are not known by now. `rows` are the view's,
    among which what came is looked for."""
    if model.label.truth and truth is None:
        return answered.with_columns(pl.lit(None, pl.String).alias(OUTCOME), pl.lit(None, pl.Float64).alias(LOSS))
    at = [*model.view.entities, model.view.time]
    known = labelled(model, rows, truth).select(*at, LABEL).unique(at)
    numbered = answered.with_row_index(_ROW)
    both = numbered.join(known, on=at, how="inner", maintain_order="left")
    loss: Floats = np.empty(0)
    if both.height:
        said = np.array(both[OUTPUT].to_list())
        loss = losses(model, said[:, 0] if model.kind == "regression" else said, labels(model, both))
    outcome = both.select(_ROW, pl.col(LABEL).cast(pl.String).alias(OUTCOME), pl.Series(LOSS, loss, pl.Float64))
    return numbered.join(outcome, on=_ROW, how="left", maintain_order="left").drop(_ROW)


def scores_schema(model: Model) -> dict[str, pl.DataType]:
    """Of the table of what was said, without its day."""
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
    """Of the table of predictions, without its day."""
    return {**scores_schema(model), OUTCOME: pl.String(), LOSS: pl.Float64()}


def decay(
    model: Model, recorded: pl.DataFrame, version: int, since: datetime, rows: int = JUDGED_ROWS
) -> Measured | None:
    """Whether the version's last losses are larger than its first after `since` (when it was trained), as many of
    each; None while there are not yet `rows` of both."""
    time = model.view.time
    judged = recorded.filter(pl.col(VERSION) == version, pl.col(LOSS).is_not_null(), pl.col(time) > since).sort(time)
    if judged.height < 2 * rows:
        return None
    return decayed(judged[LOSS].head(rows).to_numpy(), judged[LOSS].tail(rows).to_numpy())
