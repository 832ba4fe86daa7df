"""Predictions and outcomes as the lake has them, found again by a prediction's id. An id begins with the time of its
prediction, so that only one day is looked through, and of that only files of its minute."""

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
"""An outcome comes after its prediction, but for a clock that was set back meanwhile."""


class Prediction(NamedTuple):
    """What an answer is judged by. Several versions may have answered under one id."""

    model: str
    version: int
    role: str
    experiment: str | None
    """The trial that it was part of; see city.serving.trial."""
    output: list[float]
    prediction: float | str
    """The number (or its text, as the lake has it), or the class."""


class Outcome(NamedTuple):
    """What came of one version's prediction."""

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
    """Of a version that was asked beside another one: by how much a trial's other version could have had the smaller
    loss, whatever came."""


def id_of(at: float, server: str, number: int) -> str:
    """A prediction's id. `at` in seconds since the epoch; ids of one server are in order of time."""
    return f"{int(at * 1000):0{_TIME_DIGITS}x}-{server}-{number:x}"


def day_of(number: str) -> date | None:
    """The day (UTC) of the prediction with this id; None where no prediction has such an id."""
    head, dash, _ = number.partition("-")
    if not dash or len(head) != _TIME_DIGITS:
        return None
    try:
        return datetime.fromtimestamp(int(head, 16) / 1000, UTC).date()
    except (ValueError, OverflowError, OSError):
        return None


def find_predictions(lake: Path, models: Iterable[str], number: str) -> list[Prediction]:
    """Those with this id, the one that was answered first. Raises what a lake that is away raises."""
    day = day_of(number)
    for model in models if day else ():
        wanted = (pl.col(DAY) == day) & (pl.col("id") == number)
        rows = _scan(lake, SERVED, model).filter(wanted).select(Prediction._fields[1:]).collect()
        if rows.height:
            return [Prediction(model, *row) for row in rows.iter_rows()]
    return []


def find_outcomes(lake: Path, model: str, numbers: Iterable[str]) -> list[Outcome]:
    """What came of the predictions with these ids. Raises what a lake that is away raises."""
    ids = list(numbers)
    days = [day for number in ids if (day := day_of(number))]
    return _outcomes(lake, model, (pl.col(DAY) >= min(days) - _CLOCK) & pl.col("id").is_in(ids)) if days else []


def trial_outcomes(lake: Path, model: str, experiment: str, since: float) -> list[Outcome]:
    """A trial's, from the day of `since` (seconds) on, in the order in which they came. Raises what a lake that is away
    raises."""
    day = datetime.fromtimestamp(since, UTC).date()
    return _outcomes(lake, model, (pl.col(DAY) >= day) & (pl.col("experiment") == experiment))


def _outcomes(lake: Path, model: str, wanted: pl.Expr) -> list[Outcome]:
    at = (pl.col("at").dt.epoch("us") / 1e6).alias("at")
    rows = _scan(lake, OUTCOMES, model).filter(wanted).sort("at").with_columns(at, pl.lit(model).alias("model"))
    return [Outcome(*row) for row in rows.select(Outcome._fields).collect().iter_rows()]


def _scan(lake: Path, layer: str, model: str) -> pl.LazyFrame:
    schema = SCHEMAS[layer]
    rows = scan(locate(lake, layer, model), schema)
    missing = schema.keys() - set(rows.collect_schema().names())  # of a table that nothing was written to since
    return rows.with_columns(pl.lit(None, schema[name]).alias(name) for name in missing)
