"""Test, then train: a model that lives on a stream whose labels come late, and is trained anew when it has drifted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from city.arrays import Floats
from city.drift.losses import decayed


@dataclass(frozen=True)
class Lived:
    """What a model's life on a stream was like."""

    predicted: Floats
    """(n,), NaN for the rows before the first training."""
    trained_at: tuple[int, ...]
    """The rows before which it was trained; the first is its beginning."""


def live(
    x: Floats,
    y: Floats,
    fit: Callable[[Floats, Floats], Any],
    *,
    block: int,
    memory: int,
    watch: int,
    alpha: float = 0.01,
    effect: float = 0.1,
) -> Lived:
    """Predicts rows (n, f) in order, a `block` at a time, each by a model that has seen earlier rows only.

    The first model is fitted on the first block. From then on the errors of the last `watch` rows are held against
    those of the model's first `watch` rows; where they have grown (Welch, one-sided, at `alpha` and by at least
    `effect` deviations) a new one is fitted on the last `memory` rows. Most of these are still of before the drift, so
    it is fitted again whenever the rows since then have doubled, until they fill the memory; and so is the first.
    """
    if not 0 < block < len(x):
        raise ValueError(f"a block of {block} rows does not divide a stream of {len(x)}")
    model, trained_at = fit(x[:block], y[:block]), [block]
    since, known = 0, block  # where what is true now began, and how many rows of it the model has seen
    predicted = np.full(len(x), np.nan)
    for begin in range(block, len(x), block):
        end = min(begin + block, len(x))
        predicted[begin:end] = model.predict(x[begin:end])
        errors = (predicted[trained_at[-1] : end] != y[trained_at[-1] : end]).astype(float)
        enough = len(errors) >= 2 * watch
        found = decayed(errors[:watch], errors[-watch:]) if enough else None
        drifted = found is not None and found.p_value <= alpha and found.effect >= effect
        young = known < memory and end - since >= 2 * known
        if end < len(x) and (drifted or young):
            since = max(since, end - watch) if drifted else since
            rows = slice(max(0, end - memory), end)
            model, known = fit(x[rows], y[rows]), end - since
            trained_at.append(end)
    return Lived(predicted, tuple(trained_at))
