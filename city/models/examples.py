"""Selects, checks and splits the labelled rows that a model is fitted on, in order of time."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from city.arrays import Labels
from city.models.labels import KNOWN, LABEL, LEAST_WAITS
from city.models.model import Model, ModelError
from city.models.row_order import in_order

_LEAST_OF_A_CLASS = 10
_LEAST_GROUPS = 5
"""The number of groups that the rarer outcomes to train on must come from.

It is the number of folds of groups (city.models.fitting), so that an estimator that is fitted on other groups has seen
rarer outcomes, too."""


@dataclass(frozen=True)
class Split:
    """Three consecutive periods of time. The outcome of a row is known before the next period begins."""

    train: pl.DataFrame
    validation: pl.DataFrame
    held_out: pl.DataFrame


def select_rows(model: Model, rows: pl.DataFrame) -> pl.DataFrame:
    """Selects the view's rows that the model is about: those that meet its `where`."""
    return rows if model.where == "true" else rows.filter(pl.sql_expr(model.where))


def newest(model: Model, rows: pl.DataFrame) -> pl.DataFrame:
    """Selects the newest rows that the model is about, at most `most_rows`, in the order of `in_order`."""
    return in_order(model.view, select_rows(model, rows)).tail(model.most_rows)


def label_rows(model: Model, rows: pl.DataFrame, truth: pl.DataFrame | None = None) -> pl.DataFrame:
    """Returns the model's rows of the view whose truth is known, in order of time.

    They have the columns `_label`, `_naive` and `_known` (see city.models.labels). `truth` is the table with the
    labels. Raises ModelError where the model's label needs it and it is None.
    """
    if model.label.truth and truth is None:
        raise ModelError(f"model {model.name!r}: {model.label.truth} has the outcomes, and does not exist yet")
    truth_rows = pl.DataFrame() if truth is None else truth
    return model.label.label_rows(model.view, select_rows(model, rows), truth_rows)


def check_known(model: Model, rows: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
    """Returns the `labelled` rows, of the view's `rows`. Raises ModelError where no truth is known yet, and why."""
    if labelled.height or not (selected := select_rows(model, rows)).height:
        return labelled
    time, wait = selected[model.view.time], model.label.wait_of(selected)
    raise ModelError(
        f"model {model.name!r}: no outcome is known of its rows from {time.min()!s} to {time.max()!s}, because labels "
        f"are known up to {wait} after their rows; they must cover {LEAST_WAITS * wait}, and at most its history of "
        f"{model.history} or its newest {model.most_rows:,} rows are read"
    )


def check_rows(model: Model, rows: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Returns the rows if a model can be fitted on them. Raises ModelError that names what is wrong."""
    time = model.view.time
    _check_count(model, rows)
    if (latest := rows[time].max()) is not None and latest > now:  # type: ignore[operator]
        count = rows.filter(pl.col(time) > now).height
        raise ModelError(f"model {model.name!r}: {count} rows are of the future ({latest!s}): a clock is wrong")
    numbers = rows.select(pl.col(model.inputs).cast(pl.Float64))
    if infinite := [c.name for c in numbers if c.is_infinite().any()]:
        raise ModelError(f"model {model.name!r}: infinite values in {', '.join(infinite)}: fix the transform")
    if model.kind == "anomaly":
        if all(column.drop_nulls().n_unique() < 2 for column in numbers):
            raise ModelError(f"model {model.name!r}: every input is constant: there is nothing to learn from")
        return rows
    if model.kind == "regression":
        if not rows[LABEL].cast(pl.Float64).is_finite().all():
            raise ModelError(f"model {model.name!r}: the label ({model.label.description}) is not always finite")
        if rows[LABEL].n_unique() < 2:
            raise ModelError(f"model {model.name!r}: the label ({model.label.description}) is constant")
        return rows
    counts = {str(name): count for name, count in rows[LABEL].value_counts().iter_rows()}
    if unknown := sorted(counts.keys() - set(model.label.classes)):
        raise ModelError(f"model {model.name!r}: unknown classes {unknown}; declared: {list(model.label.classes)}")
    if len([c for c in counts.values() if c >= _LEAST_OF_A_CLASS]) < 2:
        raise ModelError(f"model {model.name!r}: one class only ({counts}): there is nothing to tell apart")
    return rows


def split(
    model: Model,
    rows: pl.DataFrame,
    validation: float = 0.15,
    held_out: float = 0.15,
    held_out_from: datetime | None = None,
) -> Split:
    """Splits rows by time. The newest rows are held out.

    `validation` and `held_out` are shares of the rows. `held_out_from` is the time from which rows are held out, where
    a benchmark's protocol gives it. It replaces `held_out`, and `validation` is then the share of the rows whose truth
    is known before it. Raises ModelError where a part would be empty. With a `validation` of 0 there is nothing to
    validate on: that part is empty.
    """
    time, known_at = model.view.time, pl.col(KNOWN)
    if held_out_from is None:
        count = rows.height
        borders = [rows[time][int(count * share)] for share in (1 - held_out - validation, 1 - held_out)]
    else:
        known = rows.filter(known_at < held_out_from)[time]
        border = known[int(len(known) * (1 - validation))] if validation and len(known) else held_out_from
        borders = [border, held_out_from]
    parts = Split(
        rows.filter(known_at < borders[0]),
        rows.filter(pl.col(time) >= borders[0], known_at < borders[1]),
        rows.filter(pl.col(time) >= borders[1]),
    )
    for name, part in vars(parts).items():
        if not part.height and (validation or name != "validation"):
            begin, end, stretch = rows[time].min(), rows[time].max(), name.replace("_", " ")
            wait = model.label.wait_of(rows)
            raise ModelError(
                f"model {model.name!r}: rows from {begin!s} to {end!s} leave nothing for {stretch}, because labels "
                f"are known up to {wait} after their rows; give a longer period"
            )
    return parts


def check_parts(model: Model, rows: pl.DataFrame) -> None:
    """Raises ModelError where labelled rows are too few, or a part of their split has too few of the rarer outcomes."""
    _check_count(model, rows)
    parts = split(model, rows)
    for name in ("train", "validation", "held_out"):
        check_outcomes(model, parts, name)


def check_outcomes(model: Model, parts: Split, name: Literal["train", "validation", "held_out"]) -> None:
    """Raises ModelError where nearly all rows of the part have one outcome: one class, or a number at its limit.

    A search on such rows rewards a model that never predicts anything else, and a comparison is decided by chance. The
    rarer outcomes to train on must also come from enough groups, where the model has groups.
    """
    if model.kind == "anomaly":
        return
    part: pl.DataFrame = getattr(parts, name)
    commonest = part[LABEL].mode().sort().first()
    others = part.filter(pl.col(LABEL) != commonest)
    stretch = f"model {model.name!r}: for {name.replace('_', ' ')}, {others.height} of {part.height} rows have"
    if others.height < _LEAST_OF_A_CLASS:
        raise ModelError(
            f"{stretch} another outcome than {commonest!r}; it needs {_LEAST_OF_A_CLASS}: let the stream run on"
        )
    if name != "train" or not model.groups:
        return
    groups = others.select(model.groups).n_unique()
    if groups < _LEAST_GROUPS:
        raise ModelError(
            f"{stretch} another outcome than {commonest!r}, and they are of {groups} groups "
            f"({', '.join(model.groups)}); it needs {_LEAST_GROUPS}: let the stream run on"
        )


def _check_count(model: Model, rows: pl.DataFrame) -> None:
    if rows.height < model.least_rows:
        raise ModelError(
            f"model {model.name!r}: {rows.height} rows with an outcome are too few, it needs {model.least_rows}; "
            "let the stream run on, or build more days of its features"
        )


def inputs(model: Model, rows: pl.DataFrame) -> NDArray[np.float32]:
    """Returns the inputs (n, inputs) as float32, with NaN for missing values: the numbers that serving passes, too."""
    return rows.select(pl.col(model.inputs).cast(pl.Float32).fill_null(np.nan)).to_numpy()


def labels(model: Model, rows: pl.DataFrame) -> Labels:
    """Returns the labels (n,): numbers, or for a classification the positions of the classes as declared."""
    if model.kind != "classification":
        return rows[LABEL].cast(pl.Float64).to_numpy()
    return rows[LABEL].cast(pl.Enum(model.label.classes)).to_physical().cast(pl.Int64).to_numpy()
