"""A model's threshold may differ by a category; an exported model of an older release has one threshold."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import onnx
import polars as pl
import pytest

from city.contracts.schema import TIMESTAMP
from city.models import thresholds
from city.models.exported import Calibration, Exported, export
from city.models.fitting import FittedModel, fit
from city.models.labels import LABEL
from city.models.model import Model, ModelError
from city.models.predictions import answers
from city.tables.schema import schema
from city_assets.payments.models import FRAUDS, REPORTED_WITHIN, cost_threshold

MODEL = replace(FRAUDS, space=None, defaults={"max_iter": 20, "forest_share": 0.0})
START = datetime(2026, 5, 4, tzinfo=UTC)


def payments(count: int = 6_000) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of the view and their reports. A missed fraud costs 2,000 USD at jewellers, and 10 USD at grocers."""
    chance = np.random.default_rng(0)
    category = chance.choice(["jewellery", "groceries", "books"], count, p=[0.5, 0.48, 0.02])
    far = chance.exponential(10, count)
    fraud = chance.random(count) < 1 / (1 + np.exp(6 - far / 8))
    at = [START + timedelta(seconds=20 * n) for n in range(count)]
    rows = pl.DataFrame(
        {
            "card": [f"card_{n}" for n in chance.integers(0, 400, count)],
            "timestamp": at,
            "payment_id": [f"p{n}" for n in range(count)],
            "merchant_category": category,
            "amount": np.where(category == "jewellery", 2_000.0, 10.0),
            "km_from_last": far,
            "payments_known": 1.0,
            "is_online": False,
        }
    )
    kinds = schema(FRAUDS.view.table)
    rows = rows.with_columns(pl.lit(None, kind).alias(n) for n, kind in kinds.items() if n not in rows.columns)
    reports = rows.filter(pl.Series(fraud)).select("payment_id", pl.col("timestamp") + timedelta(minutes=1))
    cast = pl.col("timestamp").cast(TIMESTAMP)
    return rows.select(kinds.keys()).with_columns(cast), reports.with_columns(cast)


@pytest.fixture(scope="module")
def fitted() -> Iterator[FittedModel]:
    rows, reports = payments()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thresholds, "LEAST", 40)
        yield fit(MODEL, rows, champion=None, now=START + timedelta(days=9), truth=reports)


def test_a_category_has_its_own_threshold_where_that_is_surely_cheaper(fitted: FittedModel) -> None:
    calibration = Exported(MODEL, fitted.exported).calibration
    assert "books" not in calibration.thresholds, "it has too few frauds"
    jewellery = calibration.threshold_for("jewellery")
    assert jewellery is not None
    assert jewellery < 0.1 < 0.3 < calibration.thresholds["groceries"]
    assert calibration.threshold_for("books") == calibration.threshold_for(None) == calibration.threshold


def test_a_category_like_all_others_has_the_overall_threshold() -> None:
    """Its own cheapest threshold is another one by chance, and would cost more for other rows."""
    chance = np.random.default_rng(3)
    probability = chance.beta(0.5, 6, 8_000)
    rows = pl.DataFrame(
        {
            "card": [f"card_{n}" for n in chance.integers(0, 500, 8_000)],
            "merchant_category": chance.choice(["fuel", "travel"], 8_000),
            "amount": chance.exponential(60, 8_000),
            LABEL: np.where(chance.random(8_000) < probability, "fraud", "genuine"),
        }
    )
    overall = cost_threshold(rows, probability)
    assert thresholds.category_thresholds(FRAUDS, probability, rows, overall) == {}
    is_fuel = pl.col("merchant_category") == "fuel"
    cheap = rows.with_columns(amount=pl.when(is_fuel).then(pl.col("amount")).otherwise(6.0))
    by_category = thresholds.category_thresholds(FRAUDS, probability, cheap, cost_threshold(cheap, probability))
    assert "fuel" not in by_category or by_category["fuel"] < 0.2
    assert by_category["travel"] > 0.4


def test_the_category_of_a_row_decides(fitted: FittedModel) -> None:
    exported = Exported(MODEL, fitted.exported)
    rows = pl.DataFrame({"merchant_category": ["jewellery", "groceries", "a new one", None]})
    calibration = replace(exported.calibration, threshold=0.5, thresholds={"jewellery": 0.05, "groceries": 0.9})
    answered = answers(MODEL, calibration, np.array([[0.4, 0.6]] * 4), rows)
    assert answered["threshold"].to_list() == [0.05, 0.9, 0.5, 0.5]
    assert answered["prediction"].to_list() == ["fraud", "genuine", "fraud", "fraud"]
    without = answers(MODEL, calibration, np.array([[0.4, 0.6]] * 4))
    assert without["threshold"].to_list() == [0.5] * 4


def test_the_probabilities_of_the_exported_model_are_frequencies(fitted: FittedModel) -> None:
    assert fitted.scores["model"]["calibration_error"] < 0.02
    assert fitted.predicted[:, 1].max() > 0.3


def test_a_model_that_an_older_release_exported_has_one_threshold() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    x = np.random.default_rng(0).normal(size=(300, len(MODEL.inputs))).astype(np.float32)
    content = export(
        MODEL, HistGradientBoostingClassifier(max_iter=3).fit(x, x[:, 0] > 0), x, Calibration(threshold=0.2)
    )
    older = onnx.load_from_string(content)
    for entry in older.metadata_props:
        if entry.key == "calibration":
            entry.value = json.dumps({"intervals": None, "threshold": 0.2, "background": []})
    calibration = Exported(MODEL, older.SerializeToString()).calibration
    assert calibration == Calibration(threshold=0.2)
    assert calibration.threshold_for("jewellery") == 0.2


def test_a_column_that_the_view_lacks_is_named() -> None:
    wrong: Model = replace(FRAUDS, threshold_by="colour")
    with pytest.raises(ModelError, match="the view 'payment_features' has no colour"):
        wrong.check()
    assert timedelta(days=1) > REPORTED_WITHIN, "the test's reports are in time"
