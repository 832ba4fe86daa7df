"""Learns what normal rows look like, and measures how far other rows are from them.

The distance combines T² and Q of principal components.
"""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats

if TYPE_CHECKING:
    from onnx import ModelProto

SCORE, SURPRISE, SHARES = 0, 1, 2
"""Columns of the estimator's output. The shares are all further columns, one for each input."""
_FAR = 25.0
"""The score above which all rows count alike: how wrong such a row is makes no version better or worse."""
_LEAST_VARIANCE = 1e-12
_ROUNDING = 1e-7
"""The relative rounding of float32, which the inputs are."""
_OPSET, _IR_VERSION = 18, 10


@dataclass(frozen=True)
class Index:
    """The combined index of Hotelling's T² and Q (Yue and Qin, 2001).

    T² is the distance within the model's plane, Q the distance from that plane. The index of a standardised row z is
    |root · z|². It is 1 at the border of normal rows.
    """

    root: Floats
    """Matrix (s, s) for s signals."""
    log_determinant: float
    """Log determinant of the index's matrix, over the directions in which there is any variance."""
    rank: int
    """The number of these directions."""


def standardisation(values: Floats) -> tuple[Floats, Floats]:
    """Returns the mean (s,) of each column of `values` (n, s), and 1 / its standard deviation, or 0 of a constant one.

    NaN stands for a missing value. A column that varies by the rounding of float32 alone is constant.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without any value
        mean, spread = (np.nan_to_num(of(values, 0)) for of in (np.nanmean, np.nanstd))
    varying = spread > _ROUNDING * np.abs(mean)
    return mean, np.where(varying, 1 / np.where(varying, spread, 1), 0)


def combined_index(rows: Floats, explained: float = 0.99, quantile: float = 0.995) -> Index:
    """Computes the index from standardised normal rows (n, s).

    `explained` is the share of the variance that the components cover. The border is at the `quantile` of normal rows.
    """
    _, singular, axes = np.linalg.svd(rows, full_matrices=False)
    variance = singular**2 / (len(rows) - 1)
    components = int(np.searchsorted(np.cumsum(variance) / variance.sum(), explained)) + 1
    projected = rows @ axes.T
    weight = np.zeros(len(variance))
    weight[:components] = 1 / np.maximum(variance[:components], _LEAST_VARIANCE)
    weight[:components] /= np.quantile((projected[:, :components] ** 2 * weight[:components]).sum(1), quantile)
    if components < len(variance):
        residual = float(np.quantile((projected[:, components:] ** 2).sum(1), quantile))
        weight[components:] = 1 / max(residual, _LEAST_VARIANCE)
    weight /= np.quantile((projected**2 * weight).sum(1), quantile)
    varying = variance > _LEAST_VARIANCE
    return Index(axes.T @ np.diag(np.sqrt(weight)) @ axes, float(np.log(weight[varying]).sum()), int(varying.sum()))


def contributions(root: Floats, rows: Floats) -> Floats:
    """Computes each signal's share (n, s) of the index of standardised rows (n, s).

    The share is by how much the index would fall if that signal alone had its expected value (Alcala and Qin, 2009).
    So the largest share names the right signal where only one is faulty. The shares of a row sum to one.
    """
    matrix = root.T @ root
    parts = (rows @ matrix) ** 2 / np.maximum(np.diag(matrix), _LEAST_VARIANCE)
    whole = parts.sum(-1, keepdims=True)
    return np.where(whole > 0, parts / np.where(whole > 0, whole, 1), 1 / rows.shape[-1])


class NormalRegion:
    """Estimates the region of normal rows. It learns from normal rows alone.

    A row is an anomaly where its index is above `threshold` times the border. `explained` and `quantile` are those of
    `combined_index`.

    Read as the exponent of a Gaussian, the index gives each row a likelihood. So two versions can be compared on the
    same normal rows: the version that finds them less surprising knows better what is normal.
    """

    def __init__(self, explained: float = 0.99, quantile: float = 0.995, threshold: float = 2.0) -> None:
        self.explained, self.quantile, self.threshold = explained, quantile, threshold

    def fit(self, x: NDArray[np.generic], y: object = None, independent: bool = False) -> "NormalRegion":
        """Fits on normal rows `x` (n, s), with NaN for missing values. A constant input is ignored.

        With `independent`, each signal is learned by itself, without its relation to the others: the naive baseline.
        Raises ValueError where all inputs are constant.
        """
        values = np.asarray(x, float)
        self.mean_, self.weight_ = standardisation(values)
        varying = self.weight_ > 0
        if not varying.any():
            raise ValueError("every input is constant: there is nothing to learn from")
        rows = self._standardise(values)
        if independent:
            rows = np.random.default_rng(0).permuted(rows, axis=0)  # keeps each signal's own spread, and no relation
        index = combined_index(rows, self.explained, self.quantile)
        self.root_ = index.root / np.sqrt(self.threshold)
        squares = ((rows @ self.root_.T) ** 2).sum(1)
        # The scale of the Gaussian that makes these rows the likeliest. Rows beyond `_FAR` count as `_FAR`.
        self.precision_ = index.rank / float(np.minimum(squares, _FAR).mean())
        determinant = index.log_determinant + index.rank * np.log(self.precision_ / self.threshold)
        scaled = 2 * np.log(self.weight_[varying]).sum()
        self.constant_ = float((index.rank * np.log(2 * np.pi) - determinant - scaled) / 2)
        return self

    def predict(self, x: NDArray[np.generic]) -> Floats:
        """Returns (n, 2 + s): the score, the surprise and each input's share of the score, for rows `x` (n, s).

        A score above 1 is an anomaly. The surprise is the negative log-likelihood. The shares of a row sum to one.
        """
        rows = self._standardise(np.asarray(x, float))
        score = ((rows @ self.root_.T) ** 2).sum(1)
        surprise = self.precision_ / 2 * np.minimum(score, _FAR) + self.constant_
        return np.column_stack([score, surprise, contributions(self.root_, rows)])

    def to_onnx(self, inputs: int) -> "ModelProto":
        """Returns `predict` as an ONNX graph of rows (n, inputs) float32."""
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
            node("Concat", ["score", "surprise", "shares"], ["output"], axis=1),
        ]
        graph = helper.make_graph(
            steps,
            "normal_region",
            [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, inputs])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, 2 + inputs])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        opset = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)

    def _standardise(self, values: Floats) -> Floats:
        """Returns the standardised values, with 0 for a missing or constant one."""
        return np.nan_to_num((values - self.mean_) * self.weight_)
