"""Finds predictions and outcomes in the lake by a prediction's id. An id begins with the time of its prediction, so
that a search reads one day only, and of that day only files of the prediction's minute."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import polars as pl

from city.lake import locate
from city.lake.tables import scan
from city.serving.recorder import OUTCOMES, SCHEMAS, SERVED
from city.tables.model import DAY

_TIME_DIGITS = 11
_CLOCK = timedelta(days=1)
"""An outcome is later than its prediction unless the clock was set back. This is the most that a search allows for."""


class Prediction(NamedTuple):
    """One version's prediction, with the fields that judging it needs. Several versions may have the same id."""

    model: str
    version: int
    role: str
    experiment: str | None
    """The id of the trial that the prediction belongs to; see city.serving.trial."""
    output: list[float]
    prediction: float | str
    """The number, or its text where it comes from the lake; or the class."""


class Outcome(NamedTuple):
    """The outcome of one version's prediction. `at` is the time at which it was received, in seconds since the
    epoch."""

    id: str
    at: float
    model: str
    version: int
    role: str
    caller: str
    outcome: str
    loss: float
    experiment: str | None = None
    most_gain: float | None = None
    """Set for a shadow and a control: the most by which the loss of the trial's other version could have been smaller,
    over all outcomes."""


def make_prediction_id(at: float, server: str, number: int) -> str:
    """Makes a prediction's id. `at` is in seconds since the epoch. Ids of one server are in order of time."""
    return f"{int(at * 1000):0{_TIME_DIGITS}x}-{server}-{number:x}"


def prediction_day(prediction_id: str) -> date | None:
    """Returns the day (UTC) of a prediction, or None for text that is no prediction's id."""
    head, dash, _ = prediction_id.partition("-")
    if not dash or len(head) != _TIME_DIGITS:
        return None
    try:
        return datetime.fromtimestamp(int(head, 16) / 1000, UTC).date()
    except (ValueError, OverflowError, OSError):
        return None


def find_predictions(lake: Path, models: Iterable[str], prediction_id: str) -> list[Prediction]:
    """Finds the predictions with an id, the one that was answered first at the head. Raises
    `city.serving.feedback.LAKE_ERRORS` while the lake is unavailable."""
    day = prediction_day(prediction_id)
    for model in models if day else ():
        condition = (pl.col(DAY) == day) & (pl.col("id") == prediction_id)
        rows = _scan(lake, SERVED, model).filter(condition).select(Prediction._fields[1:]).collect()
        if rows.height:
            return [Prediction(model, *row) for row in rows.iter_rows()]
    return []


def find_outcomes(lake: Path, model: str, prediction_ids: Iterable[str]) -> list[Outcome]:
    """Finds the outcomes of the predictions with these ids. Raises `city.serving.feedback.LAKE_ERRORS` while the lake
    is unavailable."""
    ids = list(prediction_ids)
    days = [day for prediction_id in ids if (day := prediction_day(prediction_id))]
    return _read_outcomes(lake, model, (pl.col(DAY) >= min(days) - _CLOCK) & pl.col("id").is_in(ids)) if days else []


def find_trial_outcomes(lake: Path, model: str, trial_id: str, since: float) -> list[Outcome]:
    """Returns the outcomes of the trial `trial_id` from the day of `since` on (seconds since the epoch), ordered by
    time. Raises `city.serving.feedback.LAKE_ERRORS` while the lake is unavailable."""
    day = datetime.fromtimestamp(since, UTC).date()
    return _read_outcomes(lake, model, (pl.col(DAY) >= day) & (pl.col("experiment") == trial_id))


def _read_outcomes(lake: Path, model: str, condition: pl.Expr) -> list[Outcome]:
    at = (pl.col("at").dt.epoch("us") / 1e6).alias("at")
    rows = _scan(lake, OUTCOMES, model).filter(condition).sort("at").with_columns(at, pl.lit(model).alias("model"))
    return [Outcome(*row) for row in rows.select(Outcome._fields).collect().iter_rows()]


def _scan(lake: Path, layer: str, model: str) -> pl.LazyFrame:
    schema = SCHEMAS[layer]
    rows = scan(locate(lake, layer, model), schema)
    # A table that an earlier release wrote last lacks the columns that were added since.
    missing = schema.keys() - set(rows.collect_schema().names())
    return rows.with_columns(pl.lit(None, schema[name]).alias(name) for name in missing)
