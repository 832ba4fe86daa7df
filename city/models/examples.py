"""Labelled rows in order of time, checked before anything is fitted on them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from city.models.model import Model, ModelError

LABEL, NAIVE = "_label", "_naive"
_LATER = "_later"
_LEAST_OF_A_CLASS = 10


@dataclass(frozen=True)
class Split:
    """Three stretches of time, one after the other; between them a gap as long as the label looks ahead, so that no
    label of one is known in the next."""

    train: pl.DataFrame
    validation: pl.DataFrame
    held_out: pl.DataFrame


def labelled(model: Model, rows: pl.DataFrame) -> pl.DataFrame:
    """The view's rows that have an outcome, in order of time, with `_label` and `_naive`.

    The outcome is the entity's row nearest to `ahead` later, within the tolerance: always a later row.
    """
    view, label = model.view, model.label
    ordered = rows.sort(view.time)
    later = ordered.select(*view.entities, **{_LATER: pl.col(view.time), LABEL: pl.col(label.column)})
    found = ordered.with_columns(_at=pl.col(view.time) + label.ahead).join_asof(
        later,
        left_on="_at",
        right_on=_LATER,
        by=list(view.entities),
        strategy="nearest",
        tolerance=label.tolerance,
        check_sortedness=False,
    )
    naive = model.naive or label.of
    return (
        found.filter(pl.col(LABEL).is_not_null(), pl.col(_LATER) > pl.col(view.time))
        .with_columns(label.of(pl.col(LABEL)).alias(LABEL), naive(pl.col(label.column)).alias(NAIVE))
        .drop("_at", _LATER)
    )


def checked(model: Model, rows: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """The rows, where a model can be fitted on them. Raises ModelError that names what is wrong."""
    time = model.view.time
    if rows.height < model.least_rows:
        raise ModelError(
            f"model {model.name!r}: {rows.height} rows with an outcome are too few, it needs {model.least_rows}; "
            "let the stream run on, or build more days of its features"
        )
    if (latest := rows[time].max()) is not None and latest > now:  # type: ignore[operator]
        count = rows.filter(pl.col(time) > now).height
        raise ModelError(f"model {model.name!r}: {count} rows are of the future ({latest!s}): a clock is wrong")
    numbers = rows.select(pl.col(model.inputs).cast(pl.Float64))
    if infinite := [c.name for c in numbers if c.is_infinite().any()]:
        raise ModelError(f"model {model.name!r}: infinite values in {', '.join(infinite)}: mend the transform")
    if model.kind == "regression":
        if not rows[LABEL].cast(pl.Float64).is_finite().all():
            raise ModelError(f"model {model.name!r}: the label {model.label.column!r} is not always finite")
        if rows[LABEL].n_unique() < 2:
            raise ModelError(f"model {model.name!r}: the label {model.label.column!r} is constant")
        return rows
    counts = {str(name): count for name, count in rows[LABEL].value_counts().iter_rows()}
    if unknown := sorted(counts.keys() - set(model.label.classes)):
        raise ModelError(f"model {model.name!r}: unknown classes {unknown}; declared: {list(model.label.classes)}")
    if len([c for c in counts.values() if c >= _LEAST_OF_A_CLASS]) < 2:
        raise ModelError(f"model {model.name!r}: one class only ({counts}): there is nothing to tell apart")
    return rows


def split(model: Model, rows: pl.DataFrame, validation: float = 0.15, held_out: float = 0.15) -> Split:
    """By time, the newest rows held out. Raises ModelError where a stretch would be empty."""
    time = model.view.time
    count = rows.height
    borders = [rows[time][int(count * share)] for share in (1 - held_out - validation, 1 - held_out)]
    ahead = model.label.ahead + model.label.tolerance
    parts = Split(
        rows.filter(pl.col(time) + ahead < borders[0]),
        rows.filter(pl.col(time) >= borders[0], pl.col(time) + ahead < borders[1]),
        rows.filter(pl.col(time) >= borders[1]),
    )
    for name, part in vars(parts).items():
        if not part.height:
            begin, end = str(rows[time].min()), str(rows[time].max())
            raise ModelError(
                f"model {model.name!r}: rows from {begin} to {end} leave nothing for {name.replace('_', ' ')}, for it "
                f"looks {model.label.ahead} ahead; give a longer stretch"
            )
    return parts


def inputs(model: Model, rows: pl.DataFrame) -> NDArray[np.float32]:
    """(n, inputs) float32, NaN for what is missing: the same numbers that the exported model is given."""
    return rows.select(pl.col(model.inputs).cast(pl.Float32).fill_null(np.nan)).to_numpy()


def labels(model: Model, rows: pl.DataFrame) -> NDArray[Any]:
    """(n,): numbers, or of classes their place in the declared order."""
    if model.kind == "regression":
        return rows[LABEL].cast(pl.Float64).to_numpy()
    return rows[LABEL].cast(pl.Enum(model.label.classes)).to_physical().cast(pl.Int64).to_numpy()
