"""Computes the share of each input in a prediction: Shapley values, by sampling (Štrumbelj and Kononenko, 2014).

An input's share is the change of the prediction when the input's value replaces that of a background row, on average
over the orders in which inputs are replaced. The shares of a prediction add up to its distance from the mean prediction
of the background rows.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats
from city.models.exported import Exported
from city.models.model import Model, ModelError

BACKGROUND_ROWS = 16


def background(rows: NDArray[np.float32]) -> tuple[tuple[float, ...], ...]:
    """Selects background rows from the training rows (n, inputs), evenly over their time."""
    places = np.unique(np.linspace(0, len(rows) - 1, BACKGROUND_ROWS).astype(int))
    return tuple(tuple(float(value) for value in row) for row in rows[places])


def shapley(
    predict: Callable[[NDArray[np.float32]], Floats],
    row: NDArray[np.float32],
    against: NDArray[np.float32],
    seed: int = 0,
) -> tuple[Floats, float]:
    """Computes each input's share (inputs,) in the prediction for a row, and the mean prediction of the background.

    `predict` maps rows (n, inputs) to predictions (n,). `row` is (inputs,), and `against` are the background rows.
    `predict` is called once, with background rows × 2 × (inputs + 1) rows.
    """
    chance = np.random.default_rng(seed)
    count = len(row)
    orders, steps = [], []
    for other in against:
        drawn = chance.permutation(count)
        for order in (drawn, drawn[::-1]):  # the reversed order halves the error (antithetic sampling)
            # Row k of a walk has the first k inputs of the order from `row`, the rest from the background.
            replaced = np.zeros((count + 1, count), bool)
            replaced[:, order] = np.tri(count + 1, count, -1, dtype=bool)
            steps.append(np.where(replaced, row, other))
            orders.append(order)
    predicted = predict(np.concatenate(steps).astype(np.float32)).reshape(len(orders), count + 1)
    shares = np.zeros(count)
    for order, walk in zip(orders, predicted, strict=True):
        shares[order] += np.diff(walk)
    return shares / len(orders), float(predicted[:, 0].mean())


def explained(exported: Exported, model: Model, row: NDArray[np.float32], place: int) -> tuple[dict[str, float], float]:
    """Computes each input's share in the model's output number `place`, by name, and the mean output of the background.

    Raises ModelError for a version that has no background rows.
    """
    if not exported.calibration.background:
        raise ModelError(f"this version of {model.name} cannot explain: train it again, or ask without `explain`")

    def output(rows: NDArray[np.float32]) -> Floats:
        return exported.predict(rows).reshape(len(rows), -1)[:, place]

    against = np.array(exported.calibration.background, np.float32)
    shares, base = shapley(output, row[0], against)
    return dict(zip(model.inputs, map(float, shares), strict=True)), base
