"""One row's answer is what the frames' answers are; an explanation adds up."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from city.models.attribution import background, shapley
from city.models.conformal import Intervals
from city.models.exported import Calibration
from city.models.model import Model
from city.models.predictions import answers
from city.serving.answer import interpret_output
from city_assets.equipment.models import ANOMALIES
from city_assets.payments.models import FRAUDS
from city_assets.traffic.models import CONGESTION, MODELS

SPEED = MODELS[-1]
_SHARE = st.floats(0.0, 1.0, width=32)


@settings(max_examples=200, deadline=None)
@given(
    model=st.sampled_from([SPEED, CONGESTION, FRAUDS, ANOMALIES]),
    numbers=st.lists(_SHARE, min_size=8, max_size=8),
    threshold=st.none() | st.floats(0.01, 0.99),
    own=st.floats(0.01, 0.99),
    category=st.sampled_from([None, "fuel", "a new one"]),
)
def test_a_row_and_a_frame_say_the_same(
    model: Model, numbers: list[float], threshold: float | None, own: float, category: str | None
) -> None:
    count = {"regression": 1, "anomaly": 2 + len(model.inputs)}.get(model.kind, len(model.label.classes))
    output = [float(value) for value in np.resize(numbers, count)]
    intervals = Intervals(0.9, (0.25, 0.5), (1.0, 2.0, 3.0)) if model.kind == "regression" else None
    if len(model.label.classes) != 2:
        threshold = None
    calibration = Calibration(intervals, threshold, thresholds={} if threshold is None else {"fuel": own})
    one = interpret_output(model, calibration, output, category)
    view_row = pl.DataFrame({"merchant_category": [category]}, schema={"merchant_category": pl.String})
    row = answers(model, calibration, np.array([output]), view_row).row(0, named=True)
    expected = own if category == "fuel" and model is FRAUDS and threshold is not None else threshold
    assert one.threshold == row["threshold"] == expected
    text = f"{one.prediction:.6g}" if isinstance(one.prediction, float) else one.prediction
    assert text == row["prediction"]
    for name in ("confidence", "low", "high"):
        assert getattr(one, name) == pytest.approx(row[name])
    assert one.output == row["output"]


def test_a_model_that_says_no_number_is_an_error() -> None:
    with pytest.raises(ArithmeticError, match="no number"):
        interpret_output(SPEED, Calibration(), [float("nan")])


def test_shares_add_up_and_go_to_the_inputs_that_matter() -> None:
    chance = np.random.default_rng(0)
    rows = chance.normal(size=(500, 4)).astype(np.float32)

    def model(x: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return np.asarray(3 * x[:, 0] - x[:, 1] + x[:, 0] * x[:, 2], float)

    against = np.array(background(rows), np.float32)
    row = np.array([1.0, 2.0, 0.5, 9.0], np.float32)
    shares, base = shapley(model, row, against)
    assert shares.sum() + base == pytest.approx(model(row[None])[0], abs=1e-5)
    assert shares[3] == pytest.approx(0, abs=1e-6)
    # Of what is linear the share is known: the coefficient times the distance from the background's mean.
    assert shares[1] == pytest.approx(-(2.0 - against[:, 1].mean()), abs=1e-5)
