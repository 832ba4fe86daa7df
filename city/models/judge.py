"""How good predictions are, and whether one version's are better than another's on the same rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from city.arrays import Floats
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
    """How much smaller its mean loss is; `low` and `high` bound that at 95 %."""
    low: float
    high: float
    worse_in: tuple[str, ...] = ()


def losses(model: Model, predicted: Floats, actual: NDArray[Any]) -> Floats:
    """Of each row: the absolute error, the log loss of the probabilities (n, classes), or the surprise."""
    if model.kind == "anomaly":
        return predicted[:, SURPRISE]
    if model.kind == "regression":
        return np.abs(predicted - actual)
    loss: Floats = -np.log(np.clip(predicted[np.arange(len(actual)), actual], _EPSILON, 1))
    return loss


def metrics(model: Model, predicted: Floats, actual: NDArray[Any]) -> dict[str, float]:
    """MAE and RMSE; or log loss, accuracy, macro F1 and, of two classes, average precision and calibration error; or
    the surprise and the share of false alarms."""
    from sklearn.metrics import average_precision_score, f1_score

    loss = float(losses(model, predicted, actual).mean())
    if model.kind == "anomaly":
        return {"surprise": loss, "alarms": float((predicted[:, SCORE] > 1).mean())}
    if model.kind == "regression":
        return {"mae": loss, "rmse": float(np.sqrt(np.mean((predicted - actual) ** 2)))}
    said = predicted.argmax(1)
    found = {
        "log_loss": loss,
        "accuracy": float((said == actual).mean()),
        "macro_f1": float(f1_score(actual, said, average="macro", zero_division=0)),
    }
    if len(model.label.classes) == 2 and 0 < actual.sum() < len(actual):
        found["average_precision"] = float(average_precision_score(actual, predicted[:, 1]))
        found["calibration_error"] = calibration_error(predicted[:, 1], actual)
    return found


def calibration_error(probability: Floats, actual: NDArray[Any], bins: int = 10) -> float:
    """How far probabilities (n,) are from frequencies, on average over bins of equally many rows (Naeini et al.,
    2015)."""
    parts = np.array_split(np.argsort(probability), bins)
    return float(sum(abs(probability[p].mean() - actual[p].mean()) * len(p) for p in parts if len(p)) / len(actual))


def naive(model: Model, known: pl.DataFrame, rows: pl.DataFrame) -> Floats:
    """What one would say without a model: that it stays as it is, or the mean. For classes, how often each followed
    that one in the `known` rows. For anomalies, each signal by itself."""
    if model.kind == "anomaly":
        return NormalRegion().fit(inputs(model, known), independent=True).predict(inputs(model, rows))
    if model.kind == "regression":
        return rows[NAIVE].cast(pl.Float64).fill_null(known[LABEL].cast(pl.Float64).mean()).to_numpy()
    classes = model.label.classes
    follows = np.ones((len(classes) + 1, len(classes)))  # the last row is of what is missing now
    at = lambda frame: frame[NAIVE].cast(pl.Enum(classes)).to_physical().cast(pl.Int64).fill_null(len(classes))  # noqa: E731
    np.add.at(follows, (at(known).to_numpy(), labels(model, known)), 1)
    return (follows / follows.sum(1, keepdims=True))[at(rows).to_numpy()]


def compare(champion: Floats, challenger: Floats, segments: Mapping[str, NDArray[Any]], seed: int = 0) -> Verdict:
    """Losses (n,) of two versions on the same rows in order of time, by a paired bootstrap over blocks of time, for
    neighbouring rows err together. `segments` names for each row its part, by column.

    The challenger must be better in all but 2.5 % of samples, and in no segment of fifty rows or more worse in as
    many.
    """
    difference = champion - challenger
    low, high = _bounds(difference, seed)
    gain = float(difference.mean())
    worse = []
    for column, values in segments.items():
        for value in np.unique(values):
            part = difference[values == value]
            if len(part) >= _LEAST_OF_A_SEGMENT and _bounds(part, seed)[1] < 0:
                worse.append(f"{column} = {value}")
    if low <= 0:
        reason = f"not surely better: its loss is {gain:+.4g} lower, between {low:+.4g} and {high:+.4g}"
    elif worse:
        reason = f"better on the whole ({gain:+.4g}), but worse where {', '.join(worse[:5])}"
    else:
        reason = f"better: its loss is {gain:.4g} lower, between {low:.4g} and {high:.4g}"
    return Verdict(low > 0 and not worse, reason, gain, low, high, tuple(worse))


def _bounds(difference: Floats, seed: int) -> tuple[float, float]:
    blocks = np.array_split(difference, min(_BLOCKS, len(difference)))
    sums, sizes = np.array([b.sum() for b in blocks]), np.array([len(b) for b in blocks])
    picks = np.random.default_rng(seed).integers(0, len(blocks), (_SAMPLES, len(blocks)))
    means = sums[picks].sum(1) / sizes[picks].sum(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))
