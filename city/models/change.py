"""Learns a later value as the change of the present one."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats, Labels
from city.models.estimator import Estimator

if TYPE_CHECKING:
    from onnx import ModelProto


class ChangeRegressor:
    """Predicts an input's present value plus the change that an estimator predicts.

    Boosted trees predict levels that they have seen. The change is alike on days whose levels are not, such as a
    holiday, so it is learned from fewer days. Where the input is missing, its median stands for it.
    """

    def __init__(self, estimator: Estimator, column: int) -> None:
        """`column` is the position of the input."""
        self.estimator, self.column = estimator, column
        self.median_ = 0.0

    def fit(self, x: NDArray[Any], y: Labels, /) -> "ChangeRegressor":
        """Fits the estimator on the changes. `x` are inputs (n, f), `y` the later values (n,)."""
        self.median_ = float(np.nan_to_num(np.nanmedian(x[:, self.column])))
        self.estimator.fit(x, y - self._present(x))
        return self

    def predict(self, x: NDArray[Any], /) -> Floats:
        """Predicts the later values (n,) for inputs (n, f)."""
        predicted: Floats = self._present(x) + self.estimator.predict(x)
        return predicted

    def to_onnx(self, inputs: int) -> "ModelProto":
        """Converts the fitted regressor to an ONNX model of so many inputs, with the prediction as (n, 1)."""
        from onnx import TensorProto, helper, numpy_helper
        from skl2onnx import to_onnx

        model: ModelProto = to_onnx(self.estimator, np.zeros((1, inputs), np.float32))
        graph, change = model.graph, model.graph.output[0].name
        graph.initializer.extend(
            [
                numpy_helper.from_array(np.array([self.column], np.int64), "present_column"),
                numpy_helper.from_array(np.array([self.median_], np.float32), "present_median"),
            ]
        )
        graph.node.extend(
            [
                helper.make_node("Gather", [graph.input[0].name, "present_column"], ["present_given"], axis=1),
                helper.make_node("IsNaN", ["present_given"], ["present_missing"]),
                helper.make_node("Where", ["present_missing", "present_median", "present_given"], ["present"]),
                helper.make_node("Add", [change, "present"], ["later_value"]),
            ]
        )
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info("later_value", TensorProto.FLOAT, [None, 1]))
        return model

    def _present(self, x: NDArray[Any]) -> Floats:
        present = x[:, self.column].astype(float)
        return np.where(np.isnan(present), self.median_, present)
