"""Sets the thresholds of two classes: the overall one, and those of categories for which another one is cheaper."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from city.arrays import Floats
from city.models.labels import LABEL
from city.models.model import Model

LEAST = 100
"""The number of rows of the second class that a category needs for a threshold of its own."""
_FOLDS = 5
_SURE = 2.0
"""The standard errors by which a category's own threshold must be cheaper: nearly all but 2.5 % of samples."""


def category_thresholds(model: Model, probability: Floats, rows: pl.DataFrame, overall: float) -> dict[str, float]:
    """Returns the threshold of each value of the model's `threshold_by` that is better off with its own.

    `probability` (n,) is that of the second class, for rows (n rows, with labels) that the estimator was not fitted on.
    A value needs LEAST rows of the second class. Its threshold must also be cheaper than the `overall` one on rows from
    which it was not chosen: with few rows, the cheapest threshold is that of a few costs.
    """
    if not model.threshold_by or model.threshold is None or model.threshold_cost is None:
        return {}
    values = rows[model.threshold_by].cast(pl.String)
    second = (rows[LABEL] == model.label.classes[1]).to_numpy()
    folds = _folds(model, rows)
    thresholds: dict[str, float] = {}
    for value in values.drop_nulls().unique(maintain_order=True).to_list():
        chosen = (values == value).fill_null(value=False).to_numpy()
        if second[chosen].sum() < LEAST:
            continue
        part = rows.filter(pl.Series(chosen))
        if _is_cheaper(model, probability[chosen], part, folds[chosen], overall):
            thresholds[value] = model.threshold(part, probability[chosen])
    return thresholds


def _is_cheaper(
    model: Model, probability: Floats, rows: pl.DataFrame, folds: NDArray[np.int64], overall: float
) -> bool:
    """Whether thresholds that are chosen on the other folds are surely cheaper than the overall one."""
    assert model.threshold is not None
    assert model.threshold_cost is not None
    own = np.full(len(probability), overall)
    for fold in range(_FOLDS):
        others = folds != fold
        own[~others] = model.threshold(rows.filter(pl.Series(others)), probability[others])
    saved = model.threshold_cost(rows, probability >= overall) - model.threshold_cost(rows, probability >= own)
    return bool(saved.mean() > _SURE * saved.std() / np.sqrt(len(saved)))


def _folds(model: Model, rows: pl.DataFrame) -> NDArray[np.int64]:
    """Returns the fold of each row: by its group, or by its place where the model has no groups."""
    if not model.groups:
        return np.arange(rows.height, dtype=np.int64) * _FOLDS // max(1, rows.height)
    names = rows.select(pl.concat_str(model.groups, separator=" ")).to_series()
    return (names.rank("dense").to_numpy() % _FOLDS).astype(np.int64)
