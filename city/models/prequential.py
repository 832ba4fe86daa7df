"""Prequential evaluation (test, then train) on a stream.

Labels arrive late, and the model is trained again when its errors have drifted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from city.arrays import Floats
from city.drift.losses import measure_decay
from city.drift.monitor import Thresholds
from city.models.retraining import has_decayed, has_outgrown


class Predictor(Protocol):
    """A fitted model."""

    def predict(self, x: Floats, /) -> Floats:
        """Predicts for rows `x` (n, inputs): values (n,)."""
        ...


@dataclass(frozen=True)
class PrequentialResult:
    """The result of a prequential run of a model on a stream."""

    predicted: Floats
    """Predictions (n,), with NaN for the rows before the first training."""
    trained_at: tuple[int, ...]
    """The rows before which the model was trained, the first training included."""


def live(
    x: Floats,
    y: Floats,
    fit: Callable[[Floats, Floats], Predictor],
    *,
    block: int,
    memory: int,
    watch: int,
    thresholds: Thresholds | None = None,
) -> PrequentialResult:
    """Predicts rows `x` (n, f) in order, a `block` at a time, each by a model that has seen earlier rows only.

    The first model is fitted on the first block. After that, the errors of the last `watch` rows are compared with
    those of the model's first `watch` rows. Where they have grown, a new model is fitted on the last `memory` rows.
    Most of these rows are from before the drift. So the model is fitted again whenever the rows since the drift have
    outgrown those that it knew, until they fill the memory. The first model is fitted again in the same way. The rules
    of growth are those of the platform's retraining (city.models.retraining).

    Raises ValueError where a block is not shorter than the stream.
    """
    if not 0 < block < len(x):
        raise ValueError(f"a block of {block} rows does not divide a stream of {len(x)}")
    limits = thresholds or Thresholds()
    model, trained_at = fit(x[:block], y[:block]), [block]
    since, learned = 0, block  # the first row of the present regime, and how many of its rows the model has seen
    predicted = np.full(len(x), np.nan)
    for begin in range(block, len(x), block):
        end = min(begin + block, len(x))
        predicted[begin:end] = model.predict(x[begin:end])
        errors = (predicted[trained_at[-1] : end] != y[trained_at[-1] : end]).astype(float)
        drifted = has_decayed(measure_decay(errors, watch), limits)
        young = learned < memory and has_outgrown(end - since, learned)
        if end < len(x) and (drifted or young):
            since = max(since, end - watch) if drifted else since
            rows = slice(max(0, end - memory), end)
            model, learned = fit(x[rows], y[rows]), end - since
            trained_at.append(end)
    return PrequentialResult(predicted, tuple(trained_at))
