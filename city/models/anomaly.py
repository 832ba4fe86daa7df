"""What rows look like when nothing is wrong, and how far another row is from that: T² and Q of principal components."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats

if TYPE_CHECKING:
    from onnx import ModelProto

SCORE, SURPRISE, SHARES = 0, 1, 2
"""Columns of what the estimator predicts: the shares take the rest, one for each input."""
_FAR = 25.0
"""Beyond so many times the border a row is wrong, and how wrong makes no version better or worse."""
_LEAST_VARIANCE = 1e-12
_OPSET, _IR_VERSION = 18, 10


@dataclass(frozen=True)
class Index:
    """The combined index of Hotelling's T² (how far inside the model's plane) and Q (how far off it), as Yue and Qin
    (2001) have it: for a standardised row z, |root · z|², which is 1 at the border of normal rows."""

    root: Floats
    """(s, s)."""
    log_determinant: float
    """Of the index's matrix, over the directions in which there is any variance."""
    rank: int


def combined_index(rows: Floats, explained: float = 0.99, quantile: float = 0.995) -> Index:
    """From standardised normal rows (n, s): `explained` is the share of variance that the components hold, and the
    `quantile` of normal rows is called the border."""
    _, singular, axes = np.linalg.svd(rows, full_matrices=False)
    variance = singular**2 / (len(rows) - 1)
    kept = int(np.searchsorted(np.cumsum(variance) / variance.sum(), explained)) + 1
    along = rows @ axes.T
    weight = np.zeros(len(variance))
    weight[:kept] = 1 / np.maximum(variance[:kept], _LEAST_VARIANCE)
    weight[:kept] /= np.quantile((along[:, :kept] ** 2 * weight[:kept]).sum(1), quantile)
    if kept < len(variance):
        residual = float(np.quantile((along[:, kept:] ** 2).sum(1), quantile))
        weight[kept:] = 1 / max(residual, _LEAST_VARIANCE)
    weight /= np.quantile((along**2 * weight).sum(1), quantile)
    there = variance > _LEAST_VARIANCE
    return Index(axes.T @ np.diag(np.sqrt(weight)) @ axes, float(np.log(weight[there]).sum()), int(there.sum()))


def contributions(root: Floats, rows: Floats) -> Floats:
    """Each signal's share (n, s) of the index of standardised rows (n, s): by how much it would fall if that signal
    alone were as it should be (Alcala and Qin, 2009), which names the signal of a single fault rightly. They sum to
    one."""
    matrix = root.T @ root
    parts = (rows @ matrix) ** 2 / np.maximum(np.diag(matrix), _LEAST_VARIANCE)
    whole = parts.sum(-1, keepdims=True)
    return np.where(whole > 0, parts / np.where(whole > 0, whole, 1), 1 / rows.shape[-1])


class NormalRegion:
    """An estimator of what is normal. It learns from normal rows alone, the `threshold` (in borders) included.

    The index read as a Gaussian's gives each row a likelihood, so that two versions can be compared on the same normal
    rows: the one that finds them less surprising knows better what is normal. With `independent` signals are taken
    each by itself, as one would without a model.
    """

    def __init__(self, explained: float = 0.99, quantile: float = 0.995, threshold: float = 2.0) -> None:
        self.explained, self.quantile, self.threshold = explained, quantile, threshold

    def fit(self, x: NDArray[Any], y: object = None, independent: bool = False) -> "NormalRegion":
        """`x` (n, s), NaN for what is missing. A constant input takes no part. Raises ValueError where all are."""
        values = np.asarray(x, float)
        self.mean_ = np.nan_to_num(np.nanmean(values, 0))
        spread = np.nan_to_num(np.nanstd(values, 0))
        live = spread > 1e-9 * np.maximum(1, np.abs(self.mean_))
        if not live.any():
            raise ValueError("every input is constant: there is nothing to learn from")
        self.weight_ = np.where(live, 1 / np.where(live, spread, 1), 0)
        rows = self._standard(values)
        if independent:
            rows = np.random.default_rng(0).permuted(rows, axis=0)  # keeps each signal's own spread, and no relation
        index = combined_index(rows, self.explained, self.quantile)
        self.root_ = index.root / np.sqrt(self.threshold)
        squares = ((rows @ self.root_.T) ** 2).sum(1)
        # The Gaussian's scale that makes these rows the likeliest; far ones count as just far.
        self.precision_ = index.rank / float(np.minimum(squares, _FAR).mean())
        determinant = index.log_determinant + index.rank * np.log(self.precision_ / self.threshold)
        scaled = 2 * np.log(self.weight_[live]).sum()
        self.constant_ = float((index.rank * np.log(2 * np.pi) - determinant - scaled) / 2)
        return self

    def predict(self, x: NDArray[Any]) -> Floats:
        """(n, 2 + s): the score, over 1 an anomaly; the surprise (negative log-likelihood); and each input's share of
        the score, which sum to one."""
        rows = self._standard(np.asarray(x, float))
        score = ((rows @ self.root_.T) ** 2).sum(1)
        surprise = self.precision_ / 2 * np.minimum(score, _FAR) + self.constant_
        return np.column_stack([score, surprise, contributions(self.root_, rows)])

    def to_onnx(self, inputs: int) -> "ModelProto":
        """The same, as a graph of rows (n, inputs) float32."""
        from onnx import TensorProto, helper, numpy_helper

        matrix = self.root_.T @ self.root_
        each = matrix / np.sqrt(np.maximum(np.diag(matrix), _LEAST_VARIANCE))
        constants = {
            "mean": self.mean_.astype(np.float32),
            "image": (self.weight_[:, None] * self.root_.T).astype(np.float32),
            "each": (self.weight_[:, None] * each).astype(np.float32),
            "even": np.float32(1 / inputs),
            "none": np.float32(0),
            "far": np.float32(_FAR),
            "half": np.float32(self.precision_ / 2),
            "constant": np.float32(self.constant_),
            "least": np.float32(_LEAST_VARIANCE),
            "across": np.array([1], np.int64),
        }
        node = helper.make_node
        steps = [
            node("IsNaN", ["rows"], ["missing"]),
            node("Where", ["missing", "mean", "rows"], ["filled"]),
            node("Sub", ["filled", "mean"], ["centred"]),
            node("MatMul", ["centred", "image"], ["turned"]),
            node("Mul", ["turned", "turned"], ["squares"]),
            node("ReduceSum", ["squares", "across"], ["score"], keepdims=1),
            node("Min", ["score", "far"], ["clipped"]),
            node("Mul", ["clipped", "half"], ["scaled"]),
            node("Add", ["scaled", "constant"], ["surprise"]),
            node("MatMul", ["centred", "each"], ["falls"]),
            node("Mul", ["falls", "falls"], ["parts"]),
            node("ReduceSum", ["parts", "across"], ["whole"], keepdims=1),
            node("Greater", ["whole", "none"], ["any"]),
            node("Max", ["whole", "least"], ["divisor"]),
            node("Div", ["parts", "divisor"], ["divided"]),
            node("Where", ["any", "divided", "even"], ["shares"]),
            node("Concat", ["score", "surprise", "shares"], ["said"], axis=1),
        ]
        graph = helper.make_graph(
            steps,
            "normal_region",
            [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, inputs])],
            [helper.make_tensor_value_info("said", TensorProto.FLOAT, [None, 2 + inputs])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        opset = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)

    def _standard(self, values: Floats) -> Floats:
        return np.nan_to_num((values - self.mean_) * self.weight_)
