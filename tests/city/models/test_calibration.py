"""Calibrated probabilities are frequencies and keep the order, in ONNX too."""

import numpy as np
import onnxruntime
import pytest

from city.models.calibration import CalibratedClassifier, LogisticCurve, fit_curve
from city_assets.payments.models import trees


def test_probabilities_are_frequencies_and_keep_the_order() -> None:
    chance = np.random.default_rng(0)
    true = chance.beta(0.3, 3, 40_000)
    outcome = (chance.random(len(true)) < true).astype(int)
    stretched = 1 / (1 + np.exp(-(0.4 * np.log(true / (1 - true)) + 1)))
    curve = fit_curve(stretched[:20_000], outcome[:20_000])
    calibrated = curve.apply(stretched[20_000:])
    assert (np.diff(calibrated[np.argsort(stretched[20_000:])]) >= 0).all()
    for low, high in ((0, 0.02), (0.02, 0.2), (0.2, 1)):
        within = (calibrated >= low) & (calibrated < high)
        assert calibrated[within].mean() == pytest.approx(true[20_000:][within].mean(), rel=0.1)


def test_predictions_that_know_nothing_stay_as_they_are() -> None:
    chance = np.random.default_rng(1)
    outcome = chance.integers(0, 2, 2_000)
    wrong = np.where(outcome == 1, 0.2, 0.8) + chance.uniform(-0.1, 0.1, 2_000)
    assert fit_curve(wrong, outcome) == LogisticCurve()
    assert LogisticCurve().apply(np.array([0.0, 0.25, 1.0])) == pytest.approx([0, 0.25, 1], abs=2e-6)


def test_the_exported_trees_predict_as_the_fitted_ones_where_inputs_are_missing() -> None:
    """Also where inputs are missing that were never missing among the rows learned from."""
    chance = np.random.default_rng(2)
    x = chance.normal(5, 1, (4_000, 6)).astype(np.float32)
    y = (x[:, 0] + chance.normal(size=len(x)) > 6.5).astype(int)
    x[:1_500, 3:] = np.nan
    fitted = trees({"max_iter": 20, "forest_share": 0.3}).fit(x, y)
    classifier = CalibratedClassifier(fitted, LogisticCurve(1.4, -0.5))
    session = onnxruntime.InferenceSession(classifier.to_onnx(x.shape[1]).SerializeToString())
    rows = chance.normal(5, 1, (1_000, 6)).astype(np.float32)
    for step, column in ((2, 0), (3, 1), (5, 4)):
        rows[::step, column] = np.nan
    rows[0] = np.nan
    _, exported = session.run(None, {session.get_inputs()[0].name: rows})
    expected = classifier.predict_proba(rows)
    assert np.abs(exported - expected).max() < 1e-5
    assert expected[:, 1] == pytest.approx(classifier.curve.apply(fitted.predict_proba(rows)[:, 1]))
    assert (classifier.predict(rows) == (expected[:, 1] > 0.5)).all()
