"""What a version predicted, and what came: the record that decay is seen in."""

from datetime import datetime

import numpy as np
import polars as pl

from city.arrays import Floats
from city.drift.losses import decayed
from city.drift.measures import Measured
from city.models.examples import LABEL, inputs, labelled, labels
from city.models.exported import Exported
from city.models.judge import losses
from city.models.model import Model

OUTCOME, PREDICTION, CONFIDENCE, LOSS, VERSION, FOR = "outcome", "prediction", "confidence", "loss", "version", "for"
_ROW = "_row"


def predictions(model: Model, exported: Exported, version: int, rows: pl.DataFrame) -> pl.DataFrame:
    """For each row of the view what the version says of `ahead` later: `prediction`, `confidence` (of a class, its
    probability; else null), and, where it is known by now, the `outcome` and the `loss`.

    The rows may be more than those that are asked for: outcomes are looked for among them.
    """
    view = model.view
    numbered = rows.with_row_index(_ROW)
    said = exported.predict(inputs(model, rows)) if rows.height else np.empty((0, max(1, len(model.label.classes))))
    known = labelled(model, numbered)
    loss = losses(model, said[known[_ROW].to_numpy()], labels(model, known)) if known.height else np.empty(0)
    outcome = known.select(_ROW, pl.col(LABEL).cast(pl.String).alias(OUTCOME), pl.Series(LOSS, loss, pl.Float64))
    answer, confidence = _answers(model, said)
    return (
        numbered.select(
            _ROW,
            *view.entities,
            view.time,
            (pl.col(view.time) + model.label.ahead).alias(FOR),
            pl.lit(version, pl.Int64).alias(VERSION),
            pl.Series(PREDICTION, answer, pl.String),
            pl.Series(CONFIDENCE, confidence, pl.Float64),
            pl.struct(model.inputs).struct.json_encode().alias("inputs"),
        )
        .join(outcome, on=_ROW, how="left", maintain_order="left")
        .drop(_ROW)
    )


def schema(model: Model) -> dict[str, pl.DataType]:
    """Of the table of predictions, without its day."""
    return {
        **{name: pl.String() for name in model.view.entities},
        model.view.time: pl.Datetime("us", "UTC"),
        FOR: pl.Datetime("us", "UTC"),
        VERSION: pl.Int64(),
        PREDICTION: pl.String(),
        CONFIDENCE: pl.Float64(),
        "inputs": pl.String(),
        OUTCOME: pl.String(),
        LOSS: pl.Float64(),
    }


def decay(model: Model, recorded: pl.DataFrame, version: int, since: datetime, rows: int = 500) -> Measured | None:
    """Whether the version's last losses are larger than its first after `since` (when it was trained), as many of
    each; None while there are not yet `rows` of both."""
    time = model.view.time
    judged = recorded.filter(pl.col(VERSION) == version, pl.col(LOSS).is_not_null(), pl.col(time) > since).sort(time)
    if judged.height < 2 * rows:
        return None
    return decayed(judged[LOSS].head(rows).to_numpy(), judged[LOSS].tail(rows).to_numpy())


def _answers(model: Model, said: Floats) -> tuple[list[str], list[float | None]]:
    if model.kind == "regression":
        return [f"{value:.6g}" for value in said], [None] * len(said)
    return model.label.named(said), [float(p) for p in said.max(1)]
