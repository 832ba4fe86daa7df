"""Fits a model on a feature view's rows, and judges it on the newest of them.

The steps are: split, search, fit, calibrate, export, judge.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from city.arrays import Floats, Labels
from city.models import examples, judge
from city.models.attribution import background
from city.models.calibration import CalibratedClassifier, fit_curve
from city.models.change import ChangeRegressor
from city.models.conformal import Intervals, intervals
from city.models.estimator import Classifier, Estimator
from city.models.examples import Split
from city.models.exported import Calibration, Exported, export, predict_by_estimator
from city.models.judge import Verdict
from city.models.model import Model, Parameters
from city.models.search import search
from city.models.thresholds import category_thresholds

Progress = Callable[[str], None]
_IMPORTANCE_ROWS = 2_000
_EXPORT_ROWS = 2_000
_FOLDS = 5


@dataclass(frozen=True)
class FittedModel:
    """A model that is fitted and judged, but not registered yet."""

    exported: bytes
    parts: Split
    parameters: Parameters
    scores: dict[str, dict[str, float]]
    """Metrics on the held-out rows of the `model`, of `naive`, and of the `champion` where there is one."""
    importance: dict[str, float]
    verdict: Verdict | None
    """The comparison with the champion. None where there is no champion."""
    predicted: Floats


@contextmanager
def _limit_threads() -> Iterator[None]:
    """Limits a training to half of the cores, because it shares the machine with the stream.

    Boosted trees on every core would spin while they wait for a busy core. Both would be ten times as slow. The limit
    holds only for libraries that are loaded, so the one of the trees is loaded first.
    """
    import sklearn.ensemble  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(max(1, (os.cpu_count() or 2) // 2)):
        yield


@_limit_threads()
def fit(
    model: Model,
    rows: pl.DataFrame,
    *,
    champion: Callable[[NDArray[np.float32]], Floats] | None,
    now: datetime,
    truth: pl.DataFrame | None = None,
    study: tuple[Path | None, str] = (None, "study"),
    split: Callable[[pl.DataFrame], Split] | None = None,
    progress: Progress = lambda line: None,
) -> FittedModel:
    """Fits the model on a view's rows, and judges it on the newest of them.

    The naive baseline and the champion are judged on the same rows. The held-out rows are not used before that. `truth`
    is the table that the label names, where it names one. `study` is the file and the name of the search, and
    `progress` receives lines of text. `split` replaces the split of labelled rows, where a benchmark's protocol gives
    another one. Raises ModelError for rows that cannot be learned from.
    """
    model.check()
    parts = _split_rows(model, examples.newest(model, rows), truth, now, split)
    x, x_valid = (examples.inputs(model, part) for part in (parts.train, parts.validation))
    y, y_valid = (examples.labels(model, part) for part in (parts.train, parts.validation))
    informative = _informative_inputs(x)

    def loss(parameters: Parameters) -> float:
        estimator = _fit_estimator(model, parameters, x, y, informative)
        return float(judge.losses(model, predict_by_estimator(model, estimator, x_valid), y_valid).mean())

    if model.kind != "anomaly" and len(np.unique(y_valid)) < 2:
        progress(f"{model.name}: all rows to validate on have one outcome, so nothing is searched")
        parameters: Parameters = dict(model.defaults)
    else:
        progress(f"{model.name}: {parts.train.height:,} rows to train on, searching")
        parameters = search(model, loss, *study)
    learned = pl.concat([parts.train, parts.validation])
    x_learned, y_learned = examples.inputs(model, learned), examples.labels(model, learned)
    informative_learned = _informative_inputs(x_learned)
    estimator = _fit_estimator(model, parameters, x_learned, y_learned, informative_learned)
    calibration = Calibration()
    if model.kind == "regression" or model.threshold is not None or model.is_calibrated:
        unseen, raw = _predict_unseen(model, parameters, parts)
        if model.is_calibrated:
            curve = fit_curve(raw[:, 1], examples.labels(model, unseen))
            estimator = CalibratedClassifier(cast(Classifier, estimator), curve)
            second = curve.apply(raw[:, 1])
            raw = np.column_stack([1 - second, second])
        calibration = _calibrate(model, raw, unseen)
    calibration = replace(calibration, background=background(x_learned))
    x_held, y_held = examples.inputs(model, parts.held_out), examples.labels(model, parts.held_out)
    exported = export(model, estimator, np.vstack([x_learned[-_EXPORT_ROWS:], x_held[:_EXPORT_ROWS]]), calibration)
    serving = Exported(model, exported)  # the judged model is the one that will serve
    predicted = serving.predict(x_held)
    champion_predicted = None if champion is None else champion(x_held)
    scores, verdict = _judge(model, learned, parts.held_out, predicted, calibration.intervals, champion_predicted)
    progress(f"{model.name}: {scores}")
    importance = _permutation_importance(model, serving, x_held, y_held)
    return FittedModel(exported, parts, parameters, scores, importance, verdict, predicted)


def _split_rows(
    model: Model,
    rows: pl.DataFrame,
    truth: pl.DataFrame | None,
    now: datetime,
    split: Callable[[pl.DataFrame], Split] | None,
) -> Split:
    """Labels, checks and splits the rows. Raises ModelError for rows that cannot be learned from."""
    labelled = examples.check_known(model, rows, examples.label_rows(model, rows, truth))
    labelled = examples.check_rows(model, labelled, now)
    parts = examples.split(model, labelled) if split is None else split(labelled)
    examples.check_outcomes(model, parts, "train")
    return parts


def _judge(
    model: Model,
    learned: pl.DataFrame,
    held_out: pl.DataFrame,
    predicted: Floats,
    predicted_intervals: Intervals | None,
    champion_predicted: Floats | None,
) -> tuple[dict[str, dict[str, float]], Verdict | None]:
    """Returns the `scores` and the `verdict` of FittedModel. The naive baseline uses the rows learned from."""
    actual = examples.labels(model, held_out)
    scores = {
        "model": judge.metrics(model, predicted, actual),
        "naive": judge.metrics(model, judge.naive(model, learned, held_out), actual),
    }
    if predicted_intervals is not None:
        low, high = predicted_intervals.around(predicted)
        scores["model"]["coverage"] = float(((low <= actual) & (actual <= high)).mean())
        scores["model"]["width"] = float((high - low).mean())
    if champion_predicted is None:
        return scores, None
    scores["champion"] = judge.metrics(model, champion_predicted, actual)
    segments = {name: held_out[name].cast(pl.String).fill_null("").to_numpy() for name in model.segments}
    losses, champion_losses = (judge.losses(model, p, actual) for p in (predicted, champion_predicted))
    return scores, judge.compare(champion_losses, losses, segments)


def _calibrate(model: Model, predicted: Floats, rows: pl.DataFrame) -> Calibration:
    """Calibrates on predictions for rows by estimators that were not fitted on them.

    Too few rows have no intervals.
    """
    if model.kind == "regression":
        groups = _group_names(model, rows) if model.groups else None
        return Calibration(intervals=_fit_intervals(model, predicted, examples.labels(model, rows), groups))
    if model.threshold is None:
        return Calibration()
    overall = model.threshold(rows, predicted[:, 1])
    return Calibration(threshold=overall, thresholds=category_thresholds(model, predicted[:, 1], rows, overall))


def _predict_unseen(model: Model, parameters: Parameters, parts: Split) -> tuple[pl.DataFrame, Floats]:
    """Predicts for rows by estimators that were not fitted on them. Returns the rows, and the predictions.

    For a model with groups these are all rows to learn from, each by an estimator of other groups. Otherwise they are
    the validation rows, by an estimator of the training rows.
    """
    rows = pl.concat([parts.train, parts.validation]) if model.groups else parts.train
    x, y = examples.inputs(model, rows), examples.labels(model, rows)
    informative = _informative_inputs(x)
    if model.groups:
        return rows, _predict_by_others(model, parameters, rows, x, y, informative)
    estimator = _fit_estimator(model, parameters, x, y, informative)
    return parts.validation, predict_by_estimator(model, estimator, examples.inputs(model, parts.validation))


def _predict_by_others(
    model: Model,
    parameters: Parameters,
    rows: pl.DataFrame,
    x: NDArray[np.float32],
    y: Labels,
    informative: NDArray[np.bool_],
) -> Floats:
    """Predicts for each group's rows by an estimator that is fitted on other groups."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    groups = _group_names(model, rows)
    # A rare class is spread over the folds. If one fold had all of it, the estimator for that fold would not know it.
    folds = StratifiedGroupKFold if model.kind == "classification" else GroupKFold
    predicted: Floats = np.zeros((len(rows), max(1, len(model.label.classes))))
    for others, these in folds(min(_FOLDS, len(np.unique(groups)))).split(x, y, groups):
        outputs = predict_by_estimator(
            model, _fit_estimator(model, parameters, x[others], y[others], informative), x[these]
        )
        predicted[these] = outputs.reshape(len(these), -1)
    return predicted if model.label.classes else predicted[:, 0]


def _group_names(model: Model, rows: pl.DataFrame) -> NDArray[np.object_]:
    return rows.select(pl.concat_str(model.groups, separator=" ")).to_series().to_numpy()


def _fit_intervals(
    model: Model, predicted: Floats, actual: Floats, groups: NDArray[np.object_] | None
) -> Intervals | None:
    """Fits intervals, for rows of new groups where there are groups. Returns None where there are too few rows."""
    try:
        return intervals(predicted, actual, groups, model.coverage)
    except ValueError:
        return None


def _informative_inputs(x: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Selects the inputs that have more than one value, as a mask (inputs,).

    An empty or constant input has no information, and breaks the binning of boosted trees.
    """
    return np.array([len(np.unique(column[~np.isnan(column)])) > 1 for column in x.T])


def _fit_estimator(
    model: Model, parameters: Parameters, x: NDArray[np.float32], y: Labels, informative: NDArray[np.bool_]
) -> Estimator:
    from sklearn.compose import ColumnTransformer
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.pipeline import make_pipeline

    estimator = model.estimator(parameters)
    if not informative.all() and model.kind != "anomaly":  # its output has a share for each input, also a constant one
        selection = ColumnTransformer([("telling", "passthrough", np.flatnonzero(informative).tolist())])
        estimator = make_pipeline(selection, estimator)
    if model.change_of:
        estimator = ChangeRegressor(estimator, model.inputs.index(model.change_of))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # to stop early is part of how a network generalises
        return estimator.fit(x, y)


def fit_exported(model: Model, parameters: Parameters, x: NDArray[np.float32], y: Labels) -> Exported:
    """Fits the model's estimator on inputs (n, inputs) and labels (n,) as a training does, and exports it.

    Nothing is searched, calibrated or judged. Raises ModelError where the estimator and its export disagree.
    """
    estimator = _fit_estimator(model, parameters, x, y, _informative_inputs(x))
    return Exported(model, export(model, estimator, x[-_EXPORT_ROWS:]))


def _permutation_importance(model: Model, exported: Exported, x: NDArray[np.float32], y: Labels) -> dict[str, float]:
    """Computes by how much the loss grows when an input is shuffled (Breiman, 2001), for each input by name."""
    chance = np.random.default_rng(0)
    sample = np.sort(chance.choice(len(x), min(len(x), _IMPORTANCE_ROWS), replace=False))
    rows, actual = x[sample], y[sample]
    before = judge.losses(model, exported.predict(rows), actual).mean()
    growth = {}
    for column, name in enumerate(model.inputs):
        shuffled = rows.copy()
        shuffled[:, column] = chance.permutation(shuffled[:, column])
        growth[name] = float(judge.losses(model, exported.predict(shuffled), actual).mean() - before)
    return growth
