"""Exports a fitted model to ONNX, which is registered and which predicts without scikit-learn."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from city.arrays import Floats
from city.models.conformal import Intervals
from city.models.estimator import Classifier, Estimator
from city.models.model import Model, ModelError

THRESHOLD = "threshold"
"""The column with the probability from which on the second class is predicted."""
_CLASSES, _CALIBRATION, _INPUTS = "classes", "calibration", "inputs"
_CLOSE = 1e-3
"""The tolerance, in standard deviations of the label, or of a probability."""
_SHARE = 0.001
"""The share of rows that may differ by more: rows at a split of a tree, which float32 puts on the other side."""


@dataclass(frozen=True)
class Calibration:
    """Values that were set on the validation rows. They are stored in the exported model."""

    intervals: Intervals | None = None
    threshold: float | None = None
    """For two classes: the probability from which on the second class is predicted."""
    background: tuple[tuple[float, ...], ...] = ()
    """Some rows of the training, with which a row is compared to explain its prediction."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """The threshold for the values of the model's `threshold_by` that have one of their own."""

    def threshold_for(self, value: str | None) -> float | None:
        """Returns the threshold for a value of the model's `threshold_by`. None is an unknown value."""
        return self.threshold if value is None else self.thresholds.get(value, self.threshold)

    def thresholds_for(self, model: Model, rows: pl.DataFrame | None, count: int) -> pl.Series:
        """Returns the threshold of each of `count` rows of the model's view; null for a model without thresholds.

        Where the rows are unknown (None), or do not have the column, it is the overall one.
        """
        overall = pl.repeat(self.threshold, count, dtype=pl.Float64, eager=True).alias(THRESHOLD)
        if rows is None or not self.thresholds or model.threshold_by not in rows.columns:
            return overall
        values = rows[model.threshold_by].cast(pl.String)
        own = values.replace_strict(dict(self.thresholds), default=None, return_dtype=pl.Float64)
        return own.fill_null(overall).alias(THRESHOLD)


def export(
    model: Model, estimator: Estimator, sample: NDArray[np.float32], calibration: Calibration | None = None
) -> bytes:
    """Converts an estimator to ONNX, and checks the result on sample rows (n, inputs).

    Raises ModelError where the two disagree, or where the estimator cannot be exported.
    """
    from onnx.helper import set_model_props
    from skl2onnx import to_onnx

    options = {id(estimator): {"zipmap": False}} if model.kind == "classification" else None
    try:
        if hasattr(estimator, "to_onnx"):
            converted = estimator.to_onnx(sample.shape[1])
        else:
            converted = to_onnx(estimator, sample[:1], options=options)
    except Exception as error:  # the converters raise errors of any type
        raise ModelError(
            f"model {model.name!r}: {type(estimator).__name__} cannot be exported to ONNX: {error}. "
            "Use an estimator that skl2onnx knows"
        ) from error
    metadata = {_CALIBRATION: json.dumps(asdict(calibration or Calibration())), _INPUTS: json.dumps(model.inputs)}
    if model.kind == "classification":  # the training rows may not have had all declared classes
        metadata[_CLASSES] = json.dumps([int(c) for c in cast(Classifier, estimator).classes_])
    set_model_props(converted, metadata)
    exported: bytes = converted.SerializeToString()
    check_agreement(model, predict_by_estimator(model, estimator, sample), Exported(model, exported).predict(sample))
    return exported


def predict_by_estimator(model: Model, estimator: Estimator, rows: NDArray[np.float32]) -> Floats:
    """Predicts by the estimator itself, for rows (n, inputs).

    Returns values (n,), probabilities (n, classes) with a column for each declared class, or for anomalies the output
    of NormalRegion (n, 2 + inputs).
    """
    if model.kind != "classification":
        return np.asarray(estimator.predict(rows), float)
    classifier = cast(Classifier, estimator)
    return _spread_over_classes(
        np.asarray(classifier.predict_proba(rows), float), classifier.classes_, len(model.label.classes)
    )


def check_agreement(model: Model, fitted: Floats, exported: Floats) -> None:
    """Raises ModelError where the predictions of the exported model differ from those of the fitted one.

    Both have one row for each sample row: (n,) numbers, or (n, classes) probabilities.
    """
    scale = np.ones(1) if model.kind == "classification" else np.maximum(np.std(fitted, axis=0), 1e-9)
    differences = (np.abs(fitted - exported) / scale).reshape(len(fitted), -1).max(1)
    if not (differences <= _CLOSE).mean() >= 1 - _SHARE:
        raise ModelError(
            f"model {model.name!r}: its ONNX form differs from the fitted one in {(differences > _CLOSE).mean():.1%} "
            f"of rows, by up to {differences.max():.3g}; it is not registered"
        )


@dataclass(frozen=True)
class ExportedInputs:
    """The inputs of an exported model: their number, and their names (None in a version of an earlier release)."""

    count: int
    names: tuple[str, ...] | None

    @classmethod
    def read(cls, content: bytes) -> "ExportedInputs":
        """Reads them from an ONNX model, without preparing it to predict."""
        import onnx

        model = onnx.load_model_from_string(content)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        return cls.of(model.graph.input[0].type.tensor_type.shape.dim[1].dim_value, metadata)

    @classmethod
    def of(cls, count: int, metadata: Mapping[str, str]) -> "ExportedInputs":
        """Returns the inputs of a model with that metadata."""
        names = metadata.get(_INPUTS)
        return cls(count, None if names is None else tuple(json.loads(names)))

    def mismatch(self, model: Model) -> str | None:
        """Returns why these are not the inputs that the model declares now, or None where they are."""
        if self.count != len(model.inputs):
            return f"this version takes {self.count} inputs, not {len(model.inputs)}"
        if self.names is None or self.names == tuple(model.inputs):
            return None
        others = sorted(set(self.names) ^ set(model.inputs))
        if others:
            return f"this version takes other inputs: {', '.join(others)} differ"
        return "this version takes its inputs in another order"


class OtherInputs(ModelError):
    """Reports that a version takes other inputs than its model declares now."""


class Exported:
    """An ONNX model that is ready to predict. Raises OtherInputs where it does not take the model's inputs."""

    def __init__(self, model: Model, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # predictions are small: waking threads takes longer
        self._model = model
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._classes = json.loads(metadata.get(_CLASSES, "[]"))
        self.calibration = _parse_calibration(metadata.get(_CALIBRATION, "{}"))
        inputs = ExportedInputs.of(self._session.get_inputs()[0].shape[1], metadata)
        if (mismatch := inputs.mismatch(model)) is not None:
            raise OtherInputs(f"model {model.name!r}: {mismatch}")

    def warm(self, rounds: int = 3) -> None:
        """Predicts rows of zeros, because the first runs of a session are slow."""
        for count in (1, 16) * rounds:
            self.predict(np.zeros((count, len(self._model.inputs)), np.float32))

    def predict(self, rows: NDArray[np.float32]) -> Floats:
        """Predicts for inputs (n, inputs).

        Returns values (n,), probabilities (n, classes), or for anomalies the output of NormalRegion (n, 2 + inputs).
        """
        outputs = self._session.run(None, {self._input: np.ascontiguousarray(rows, np.float32)})
        if self._model.kind == "regression":
            return np.asarray(outputs[0], float).reshape(len(rows))
        if self._model.kind == "anomaly":
            return np.asarray(outputs[0], float)
        return _spread_over_classes(np.asarray(outputs[1], float), self._classes, len(self._model.label.classes))


def _parse_calibration(text: str) -> Calibration:
    content = json.loads(text)
    intervals = content.get("intervals")
    background = tuple(map(tuple, content.get("background", ())))
    return Calibration(
        Intervals(**intervals) if intervals else None,
        content.get("threshold"),
        background,
        content.get("thresholds", {}),
    )


def _spread_over_classes(probabilities: Floats, learned: NDArray[np.generic], classes: int) -> Floats:
    """Returns (n, classes): the probabilities of the learned classes at their positions, and 0 for the others."""
    wide = np.zeros((len(probabilities), classes))
    wide[:, np.asarray(learned, int)] = probabilities
    return wide
