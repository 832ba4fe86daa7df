"""Measures how good predictions are, and compares two versions on the same rows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from city.arrays import Floats, Labels
from city.models.anomaly import SCORE, SURPRISE, NormalRegion
from city.models.examples import inputs, labels
from city.models.labels import LABEL, NAIVE
from city.models.model import Model

_SAMPLES = 1_000
_BLOCKS = 30
_LEAST_OF_A_SEGMENT = 50
_EPSILON = 1e-4


@dataclass(frozen=True)
class Verdict:
    """Whether a challenger should become the champion, and why."""

    better: bool
    reason: str
    gain: float
    """How much smaller the challenger's mean loss is. `low` and `high` are the bounds of its 95 % interval."""
    low: float
    high: float
    worse_segments: tuple[str, ...] = ()
    """The segments in which the challenger is worse."""


def losses(model: Model, predicted: Floats, actual: Labels) -> Floats:
    """Returns the loss of each row (n,). `actual` has the labels (n,): numbers, or the index of the class.

    It is the absolute error, the log loss of the probabilities (n, classes), or the surprise of an anomaly model.
    """
    if model.kind == "anomaly":
        return predicted[:, SURPRISE]
    if model.kind == "regression":
        return np.abs(predicted - actual)
    loss: Floats = -np.log(np.clip(predicted[np.arange(len(actual)), actual], _EPSILON, 1))
    return loss


def metrics(model: Model, predicted: Floats, actual: Labels) -> dict[str, float]:
    """Computes the metrics of predictions, by name. The arguments have the shapes that `losses` takes.

    A regression has MAE and RMSE. A classification has log loss, accuracy and macro F1 and, with two classes, average
    precision and calibration error. An anomaly model has the surprise and the share of false alarms.
    """
    from sklearn.metrics import average_precision_score, f1_score

    loss = float(losses(model, predicted, actual).mean())
    if model.kind == "anomaly":
        return {"surprise": loss, "alarms": float((predicted[:, SCORE] > 1).mean())}
    if model.kind == "regression":
        return {"mae": loss, "rmse": float(np.sqrt(np.mean((predicted - actual) ** 2)))}
    predicted_class = predicted.argmax(1)
    values = {
        "log_loss": loss,
        "accuracy": float((predicted_class == actual).mean()),
        "macro_f1": float(f1_score(actual, predicted_class, average="macro", zero_division=0)),
    }
    if len(model.label.classes) == 2 and 0 < actual.sum() < len(actual):
        values["average_precision"] = float(average_precision_score(actual, predicted[:, 1]))
        values["calibration_error"] = calibration_error(predicted[:, 1], actual)
    return values


def calibration_error(probability: Floats, actual: Labels, bins: int = 10) -> float:
    """Returns the mean distance of probabilities (n,) from frequencies, over bins of equally many rows.

    Source: Naeini et al., 2015.
    """
    parts = np.array_split(np.argsort(probability), bins)
    return float(sum(abs(probability[p].mean() - actual[p].mean()) * len(p) for p in parts if len(p)) / len(actual))


def naive(model: Model, training_rows: pl.DataFrame, rows: pl.DataFrame) -> Floats:
    """Predicts for `rows` without a model: the baseline.

    A regression predicts that the value stays as it is, or the mean where that is missing. A classification predicts
    how often each class followed the present one in the training rows. An anomaly model judges each signal by itself.
    """
    if model.kind == "anomaly":
        return NormalRegion().fit(inputs(model, training_rows), independent=True).predict(inputs(model, rows))
    if model.kind == "regression":
        return rows[NAIVE].cast(pl.Float64).fill_null(training_rows[LABEL].cast(pl.Float64).mean()).to_numpy()
    classes = model.label.classes
    follows = np.ones((len(classes) + 1, len(classes)))  # the last row is for rows whose present class is missing
    class_codes = lambda frame: frame[NAIVE].cast(pl.Enum(classes)).to_physical().cast(pl.Int64).fill_null(len(classes))  # noqa: E731
    np.add.at(follows, (class_codes(training_rows).to_numpy(), labels(model, training_rows)), 1)
    return (follows / follows.sum(1, keepdims=True))[class_codes(rows).to_numpy()]


def compare(
    champion: Floats, challenger: Floats, segments: Mapping[str, NDArray[np.object_]], seed: int = 0
) -> Verdict:
    """Compares the losses (n,) of two versions on the same rows, in order of time.

    It is a paired bootstrap over blocks of time, because the errors of neighbouring rows are correlated. `segments` has
    the segment of each row (n,), by column.

    The challenger is better where its loss is smaller in all but 2.5 % of the samples. There must be no segment of
    fifty rows or more in which its loss is larger in as many samples.
    """
    difference = champion - challenger
    low, high = _bootstrap_bounds(difference, seed)
    gain = float(difference.mean())
    worse = []
    for column, values in segments.items():
        for value in np.unique(values):
            part = difference[values == value]
            if len(part) >= _LEAST_OF_A_SEGMENT and _bootstrap_bounds(part, seed)[1] < 0:
                worse.append(f"{column} = {value}")
    if low <= 0:
        reason = f"not surely better: its loss is {gain:+.4g} lower, between {low:+.4g} and {high:+.4g}"
    elif worse:
        reason = f"better on the whole ({gain:+.4g}), but worse where {', '.join(worse[:5])}"
    else:
        reason = f"better: its loss is {gain:.4g} lower, between {low:.4g} and {high:.4g}"
    return Verdict(low > 0 and not worse, reason, gain, low, high, tuple(worse))


def _bootstrap_bounds(difference: Floats, seed: int) -> tuple[float, float]:
    """Returns the 95 % bounds of the mean of differences (n,) that are in order of time."""
    blocks = np.array_split(difference, min(_BLOCKS, len(difference)))
    sums, sizes = np.array([b.sum() for b in blocks]), np.array([len(b) for b in blocks])
    picks = np.random.default_rng(seed).integers(0, len(blocks), (_SAMPLES, len(blocks)))
    means = sums[picks].sum(1) / sizes[picks].sum(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))
