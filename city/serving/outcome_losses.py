"""Losses of a model's outputs, given the outcomes of what they predicted."""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from city.models.examples import labels
from city.models.judge import losses
from city.models.labels import LABEL
from city.models.model import Model
from city.web.problems import Problem


def outcome_loss(model: Model, output: Sequence[float], outcome: str) -> float:
    """Returns the loss of a model's output, given its outcome as text. The outcome must be one that the model can
    have; `outcome_text` checks that."""
    if model.kind == "classification":
        actual = labels(model, pl.DataFrame({LABEL: [outcome]}))
        return float(losses(model, np.array([output]), actual)[0])
    return float(losses(model, np.array([output[0]]), np.array([float(outcome)]))[0])


def most_gain(model: Model, other: Sequence[float], champion: Sequence[float]) -> float:
    """Returns the largest difference, over all outcomes, between the other version's loss and the champion's, from both
    versions' outputs for one input.

    For a regression that is the difference of the two predictions, because absolute errors differ by no more. The
    difference counts in both directions. A bound in one direction only can be nearly zero: of two classifiers that are
    almost certain, either may be slightly more so. Such a bound would turn the smallest difference into proof.
    """
    if model.kind == "regression":
        return abs(other[0] - champion[0])
    actual = np.arange(len(model.label.classes))
    loss_vectors = [losses(model, np.tile(output, (len(actual), 1)), actual) for output in (champion, other)]
    return float(np.abs(loss_vectors[0] - loss_vectors[1]).max())


def outcome_text(model: Model, outcome: float | str) -> str:
    """Returns the outcome as the text that is recorded. Equal outcomes have equal texts. Raises Problem for an outcome
    that the model cannot have."""
    if model.kind == "anomaly":
        raise Problem(422, f"{model.name} is judged by confirmed events: `city reference import anomaly_events`")
    if model.kind == "classification":
        if str(outcome) not in model.label.classes:
            classes = ", ".join(model.label.classes)
            raise Problem(
                422, f"{model.name} has no outcome {str(outcome)[:40]!r}; known: {classes}", [("outcome", classes)]
            )
        return str(outcome)
    try:
        value = float(outcome)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Problem(422, f"the outcome of {model.name} is a finite number", [("outcome", "give a finite number")])
    return str(value)
