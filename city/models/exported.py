"""A fitted model as ONNX: what is registered and what predicts, without scikit-learn."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats
from city.models.conformal import Intervals
from city.models.model import Model, ModelError

_CLASSES, _CALIBRATION = "classes", "calibration"
_CLOSE = 1e-3
"""Of the label's spread, or of a probability."""
_SHARE = 0.001
"""Rows that may differ by more: those on a split of a tree, which float32 puts on the other side."""


@dataclass(frozen=True)
class Calibration:
    """What was set on the validation rows, and travels with the model."""

    intervals: Intervals | None = None
    threshold: float | None = None
    background: tuple[tuple[float, ...], ...] = ()
    """Some rows of its training, against which a prediction is explained."""


def export(model: Model, estimator: Any, sample: NDArray[np.float32], calibration: Calibration | None = None) -> bytes:
    """The estimator as ONNX, checked on sample rows (n, inputs). Raises ModelError where the two disagree, or where
    the estimator cannot be exported."""
    from onnx.helper import set_model_props
    from skl2onnx import to_onnx

    options = {id(estimator): {"zipmap": False}} if model.kind == "classification" else None
    try:
        if hasattr(estimator, "to_onnx"):
            converted = estimator.to_onnx(sample.shape[1])
        else:
            converted = to_onnx(estimator, sample[:1], options=options)
    except Exception as error:  # the converters raise whatever they like
        raise ModelError(
            f"model {model.name!r}: {type(estimator).__name__} cannot be exported to ONNX: {error}. "
            "Use an estimator that skl2onnx knows"
        ) from error
    carried = {_CALIBRATION: json.dumps(asdict(calibration or Calibration()))}
    if model.kind == "classification":  # the training rows may have had not all of the declared ones
        carried[_CLASSES] = json.dumps([int(c) for c in estimator.classes_])
    set_model_props(converted, carried)
    exported: bytes = converted.SerializeToString()
    agree(model, own(model, estimator, sample), Exported(model, exported).predict(sample))
    return exported


def own(model: Model, estimator: Any, rows: NDArray[np.float32]) -> Floats:
    """What the estimator itself says: values (n,), probabilities (n, classes) with the declared classes' columns, or
    of anomalies what NormalRegion says."""
    if model.kind != "classification":
        return np.asarray(estimator.predict(rows), float)
    return _widened(np.asarray(estimator.predict_proba(rows), float), estimator.classes_, len(model.label.classes))


def agree(model: Model, ours: Floats, exported: Floats) -> None:
    """Raises ModelError where the exported model says something else than the fitted one."""
    scale = np.ones(1) if model.kind == "classification" else np.maximum(np.std(ours, axis=0), 1e-9)
    apart = (np.abs(ours - exported) / scale).reshape(len(ours), -1).max(1)
    if not (apart <= _CLOSE).mean() >= 1 - _SHARE:
        raise ModelError(
            f"model {model.name!r}: its ONNX form differs from the fitted one in {(apart > _CLOSE).mean():.1%} "
            f"of rows, by up to {apart.max():.3g}; it is not registered"
        )


class Exported:
    """An ONNX model, ready to predict."""

    def __init__(self, model: Model, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # predictions are small: waking threads takes longer
        self._model = model
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._classes = json.loads(self._session.get_modelmeta().custom_metadata_map.get(_CLASSES, "[]"))
        self.calibration = _calibration(self._session.get_modelmeta().custom_metadata_map.get(_CALIBRATION, "{}"))
        width = self._session.get_inputs()[0].shape[1]
        if width != len(model.inputs):
            raise ModelError(f"model {model.name!r}: this version takes {width} inputs, not {len(model.inputs)}")

    def warm(self, rounds: int = 3) -> None:
        """Predicts what nobody asked for: the first runs of a session are slow."""
        for count in (1, 16) * rounds:
            self.predict(np.zeros((count, len(self._model.inputs)), np.float32))

    def predict(self, rows: NDArray[np.float32]) -> Floats:
        """Values (n,), probabilities (n, classes), or of anomalies what NormalRegion says (n, 2 + inputs), for inputs
        (n, inputs)."""
        found = self._session.run(None, {self._input: np.ascontiguousarray(rows, np.float32)})
        if self._model.kind == "regression":
            return np.asarray(found[0], float).reshape(len(rows))
        if self._model.kind == "anomaly":
            return np.asarray(found[0], float)
        return _widened(np.asarray(found[1], float), self._classes, len(self._model.label.classes))


def _calibration(text: str) -> Calibration:
    found = json.loads(text)
    intervals = found.get("intervals")
    background = tuple(map(tuple, found.get("background", ())))
    return Calibration(Intervals(**intervals) if intervals else None, found.get("threshold"), background)


def _widened(probabilities: Floats, seen: Any, classes: int) -> Floats:
    wide = np.zeros((len(probabilities), classes))
    wide[:, np.asarray(seen, int)] = probabilities
    return wide
