"""Calibrates the probabilities of two classes by a logistic curve over their log odds (Platt, 1999)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats
from city.models.estimator import Classifier

if TYPE_CHECKING:
    from onnx import ModelProto

_EPSILON = 1e-6
"""The distance of probabilities from 0 and 1, where the log odds are infinite. A float32 can hold it beside 1."""


@dataclass(frozen=True)
class LogisticCurve:
    """Maps a probability p to 1 / (1 + exp(-(slope · log(p / (1 - p)) + intercept))). It keeps the order."""

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, probability: Floats) -> Floats:
        """Returns calibrated probabilities, of the shape of `probability`."""
        calibrated: Floats = 1 / (1 + np.exp(-(self.slope * _log_odds(probability) + self.intercept)))
        return calibrated


def fit_curve(probability: Floats, outcome: NDArray[np.integer]) -> LogisticCurve:
    """Fits the curve by which predictions become frequencies.

    `probability` (n,) is that of the second class, by estimators that were not fitted on the row. `outcome` (n,) is 1
    for the second class. Returns the curve that changes nothing where there is one outcome only, or where probabilities
    do not grow with the frequency.
    """
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(outcome)) < 2:
        return LogisticCurve()
    regression = LogisticRegression(C=1e6).fit(_log_odds(probability)[:, None], outcome)
    slope = float(regression.coef_[0, 0])
    return LogisticCurve(slope, float(regression.intercept_[0])) if slope > 0 else LogisticCurve()


class CalibratedClassifier:
    """A fitted classifier of two classes, whose probabilities follow a curve. It can be exported to ONNX."""

    def __init__(self, classifier: Classifier, curve: LogisticCurve) -> None:
        self.classifier, self.curve = classifier, curve

    @property
    def classes_(self) -> NDArray[np.generic]:
        """The two classes, ascending."""
        return self.classifier.classes_

    def fit(self, x: NDArray[np.generic], y: NDArray[np.generic], /) -> Self:
        """Fits the classifier on rows `x` (n, inputs) with the outcomes `y` (n,). The curve stays."""
        self.classifier.fit(x, y)
        return self

    def predict(self, x: NDArray[np.generic], /) -> Floats:
        """Predicts the likelier class (n,) for rows `x` (n, inputs)."""
        return np.asarray(self.classes_)[self.predict_proba(x).argmax(1)]

    def predict_proba(self, x: NDArray[np.generic], /) -> Floats:
        """Predicts the calibrated probabilities (n, 2) for rows `x` (n, inputs)."""
        second = self.curve.apply(np.asarray(self.classifier.predict_proba(x), float)[:, 1])
        return np.column_stack([1 - second, second])

    def to_onnx(self, inputs: int) -> "ModelProto":
        """Converts to ONNX: the classifier by skl2onnx, and the curve after its probabilities."""
        from onnx import TensorProto, numpy_helper
        from onnx.helper import make_attribute, make_node, make_tensor_value_info
        from skl2onnx import to_onnx

        model = to_onnx(
            self.classifier,
            np.zeros((1, inputs), np.float32),
            options={id(self.classifier): {"zipmap": False}},
        )
        graph = model.graph
        probabilities = graph.output[1].name
        constants = {
            "curve_low": np.float32(_EPSILON),
            "curve_high": np.float32(1 - _EPSILON),
            "curve_one": np.float32(1),
            "curve_slope": np.float32(self.curve.slope),
            "curve_intercept": np.float32(self.curve.intercept),
            "curve_second": np.array([1], np.int64),
        }
        graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())
        steps = (
            ("Gather", (probabilities, "curve_second"), "curve_raw"),
            ("Clip", ("curve_raw", "curve_low", "curve_high"), "curve_p"),
            ("Sub", ("curve_one", "curve_p"), "curve_q"),
            ("Div", ("curve_p", "curve_q"), "curve_odds"),
            ("Log", ("curve_odds",), "curve_log_odds"),
            ("Mul", ("curve_log_odds", "curve_slope"), "curve_scaled"),
            ("Add", ("curve_scaled", "curve_intercept"), "curve_shifted"),
            ("Sigmoid", ("curve_shifted",), "curve_calibrated"),
            ("Sub", ("curve_one", "curve_calibrated"), "curve_rest"),
            ("Concat", ("curve_rest", "curve_calibrated"), "calibrated"),
        )
        for operator, names, result in steps:
            node = make_node(operator, names, [result], name=result)
            if operator in ("Gather", "Concat"):
                node.attribute.append(make_attribute("axis", 1))
            graph.node.append(node)
        del graph.output[1]
        graph.output.append(make_tensor_value_info("calibrated", TensorProto.FLOAT, [None, 2]))
        return _without_unused(model)


def _without_unused(model: "ModelProto") -> "ModelProto":
    """Drops constants that no node uses, which skl2onnx leaves. ONNX Runtime warns of them at each load."""
    used = {name for node in model.graph.node for name in node.input}
    for constant in [c for c in model.graph.initializer if c.name not in used]:
        model.graph.initializer.remove(constant)
    return model


def _log_odds(probability: Floats) -> Floats:
    clipped = np.clip(probability, _EPSILON, 1 - _EPSILON)
    odds: Floats = np.log(clipped / (1 - clipped))
    return odds
