"""Learns what normal rows look like where signals wander: of a machine that is watched from its start on.

Such a machine has few normal rows, and it warms up. Its signals leave the range in which they were, and nothing is
wrong. How far a signal may go is learned by the components of variance of its normal rows.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats
from city.models.anomaly import NormalRegion, standardisation

if TYPE_CHECKING:
    from onnx import ModelProto

_WINDOWS_OF_A_BLOCK = 4
"""A block is so many windows long. So it has several independent means over a window, and a few hundred rows have
several blocks."""
_LEAST_BLOCKS = 3
_LEAST_VARIANCE = 1e-12
_THRESHOLD, _LIMIT = 7.5, 2.4
"""The borders. Beyond each of them are a quarter of the normal rows of a pump rig that warms up, within two times the
length of the fit after its end (SKAB's anomaly-free rows, from 200 places: `benchmarks._injected.borders`)."""
_GROWTH = 10.0
_PREFIX = "relations_"


@dataclass(frozen=True)
class Wander:
    """Where each of s inputs is, and how far from there it goes."""

    centre: Floats
    """The mean of each input (s,)."""
    variance: Floats
    """The expected square of each input's distance from its centre (s,), some time after the rows of the fit."""


def components_of_variance(rows: Floats, window: int, growth: float) -> Wander:
    """Estimates how far each of s signals goes, from rows (n, s) in order of time.

    The rows are trailing means over `window` readings, or other statistics of as many. The variance within blocks of
    time is that of noise. The variance between the means of blocks is that of slow change, once the share that noise
    alone would give them is subtracted. Only slow change goes on, so its part is multiplied by `growth`. Raises
    ValueError for fewer than three blocks.
    """
    length = _WINDOWS_OF_A_BLOCK * window
    count = len(rows) // length
    if count < _LEAST_BLOCKS:
        raise ValueError(f"{len(rows)} rows are too few: it takes {_LEAST_BLOCKS * length}, for means over {window}")
    newest = rows[len(rows) - count * length :]
    blocks = newest.reshape(count, length, -1)
    within, between = blocks.var(1).mean(0), blocks.mean(1).var(0, ddof=1)
    slow = np.maximum(between - newest.var(0) / _WINDOWS_OF_A_BLOCK, 0)
    return Wander(newest.mean(0), within + growth * slow)


class WanderingRegion:
    """Estimates the region of normal rows of signals that wander. It learns from normal rows alone, in order of time.

    It has two borders, and a row beyond either of them is an anomaly. The first is that of NormalRegion, of the first
    `related` inputs (all where it is None): it knows which signals go together. The second is of each input alone: the
    mean of the squared distances from the centres, as shares of the variances by `components_of_variance`, is at most
    `limit`. A fault in a signal that holds still is beyond the second border long before it is beyond the first.

    `window` is the number of readings that an input is the mean of. `growth` is by how much the slow variance grows. A
    random walk of the length of the fit has ten times the variance of its blocks' means, from the fit's mean, 4/3 of
    that length after its end.
    """

    def __init__(
        self,
        window: int,
        related: int | None = None,
        limit: float = _LIMIT,
        growth: float = _GROWTH,
        explained: float = 0.99,
        quantile: float = 0.995,
        threshold: float = _THRESHOLD,
    ) -> None:
        self.window, self.related, self.limit, self.growth = window, related, limit, growth
        self.explained, self.quantile, self.threshold = explained, quantile, threshold

    def fit(self, x: NDArray[np.generic], y: object = None) -> "WanderingRegion":
        """Fits on normal rows `x` (n, s) in order of time, with NaN for missing values. A constant input is ignored.

        Raises ValueError where all of the related inputs are constant, or where the rows are too few.
        """
        values = np.asarray(x, float)
        self.related_ = values.shape[1] if self.related is None else self.related
        self.relations_ = NormalRegion(self.explained, self.quantile, self.threshold).fit(values[:, : self.related_])
        mean, weight = standardisation(values)
        wander = components_of_variance(np.nan_to_num((values - mean) * weight), self.window, self.growth)
        varying = (weight > 0) & (wander.variance > _LEAST_VARIANCE)
        deviation = 1 / np.where(varying, weight, 1)
        self.centre_ = mean + np.where(varying, wander.centre * deviation, 0)
        width = deviation * np.sqrt(self.limit * varying.sum() * np.where(varying, wander.variance, 1))
        self.scale_ = np.where(varying, 1 / np.maximum(width, _LEAST_VARIANCE), 0)
        return self

    def predict(self, x: NDArray[np.generic]) -> Floats:
        """Returns (n, 2 + s): the score, the surprise and each input's share of the score, for rows `x` (n, s).

        A score above 1 is an anomaly. The surprise is that of the related inputs, see NormalRegion. The shares are
        those by the border that the row is further from. They sum to one.
        """
        values = np.asarray(x, float)
        related = self.relations_.predict(values[:, : self.related_])
        parts = self.squares(values)
        alone = parts.sum(1)
        is_alone = (alone > related[:, 0])[:, None]
        padded = np.pad(related[:, 2:], ((0, 0), (0, values.shape[1] - self.related_)))
        shares = np.where(is_alone, parts / np.maximum(alone, _LEAST_VARIANCE)[:, None], padded)
        return np.column_stack([np.maximum(alone, related[:, 0]), related[:, 1], shares])

    def squares(self, x: NDArray[np.generic]) -> Floats:
        """Returns each input's part (n, s) of the score by the second border, for rows `x` (n, s)."""
        return np.asarray(np.nan_to_num((np.asarray(x, float) - self.centre_) * self.scale_) ** 2, float)

    def to_onnx(self, inputs: int) -> "ModelProto":
        """Returns `predict` as an ONNX graph of rows (n, inputs) float32."""
        from onnx import TensorProto, compose, helper, numpy_helper

        relations = compose.add_prefix(self.relations_.to_onnx(self.related_), _PREFIX)
        constants = {
            "centre": self.centre_.astype(np.float32),
            "scale": self.scale_.astype(np.float32),
            "least": np.float32(_LEAST_VARIANCE),
            "across": np.array([1], np.int64),
            "first": np.array([0], np.int64),
            "second": np.array([1], np.int64),
            "third": np.array([2], np.int64),
            "related": np.array([self.related_], np.int64),
            "end": np.array([2 + self.related_], np.int64),
            "wider": np.array([0, 0, 0, inputs - self.related_], np.int64),
        }
        node, output = helper.make_node, relations.graph.output[0].name
        steps = [
            node("Slice", ["rows", "first", "related", "across"], [relations.graph.input[0].name]),
            *relations.graph.node,
            node("Slice", [output, "first", "second", "across"], ["related_score"]),
            node("Slice", [output, "second", "third", "across"], ["surprise"]),
            node("Slice", [output, "third", "end", "across"], ["related_shares"]),
            node("Pad", ["related_shares", "wider"], ["padded"]),
            node("IsNaN", ["rows"], ["missing"]),
            node("Where", ["missing", "centre", "rows"], ["filled"]),
            node("Sub", ["filled", "centre"], ["centred"]),
            node("Mul", ["centred", "scale"], ["scaled"]),
            node("Mul", ["scaled", "scaled"], ["parts"]),
            node("ReduceSum", ["parts", "across"], ["alone"], keepdims=1),
            node("Greater", ["alone", "related_score"], ["is_alone"]),
            node("Max", ["alone", "least"], ["divisor"]),
            node("Div", ["parts", "divisor"], ["alone_shares"]),
            node("Where", ["is_alone", "alone_shares", "padded"], ["shares"]),
            node("Max", ["alone", "related_score"], ["score"]),
            node("Concat", ["score", "surprise", "shares"], ["output"], axis=1),
        ]
        graph = helper.make_graph(
            steps,
            "wandering_region",
            [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, inputs])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, 2 + inputs])],
            [
                *relations.graph.initializer,
                *(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()),
            ],
        )
        return helper.make_model(graph, opset_imports=relations.opset_import, ir_version=relations.ir_version)
