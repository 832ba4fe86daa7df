"""Features look back only; the threshold is the cheapest, also of a category."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from city.contracts.schema import event_schema
from city.lake.engines.polars import PolarsEngine
from city.models.fitting import fit
from city.models.model import Model
from city.tables.schema import schema
from city_assets.payments.contract import PAYMENTS
from city_assets.payments.models import FRAUDS, cheapest_threshold
from city_assets.payments.tables import PAYMENT_FEATURES
from city_assets.payments.transforms import payment_features

HISTORY = {
    **{f"card_count_{days}d": days for days in (1, 7, 30)},
    **{"card_mean_1d": 18.0, "card_mean_7d": 27.0, "card_mean_30d": 9.0},
    **{f"terminal_count_{days}d": 2 * days for days in (1, 7, 30)},
    **{f"terminal_fraud_share_{days}d": 0.5 for days in (1, 7, 30)},
}


def payments(amounts: list[float], cards: list[str], **fields: Any) -> pl.DataFrame:
    at = [datetime(2026, 5, 1, tzinfo=UTC) + timedelta(hours=2 * n) for n in range(len(amounts))]
    rows = {"card": cards, "timestamp": at, "amount": amounts, "payment_id": [f"p{n}" for n in range(len(amounts))]}
    rows |= {"device": "d", "merchant_category": "fuel", "hour_of_day": 3, "is_weekend": False, "day": None} | fields
    frame = pl.DataFrame(rows)
    kinds = event_schema(PAYMENTS)
    return frame.with_columns(pl.lit(None, kind).alias(n) for n, kind in kinds.items() if n not in frame.columns)


def features(rows: pl.DataFrame) -> pl.DataFrame:
    engine = PolarsEngine()
    return (
        engine.collect(payment_features(engine.local(rows))).select(schema(PAYMENT_FEATURES).keys()).sort("timestamp")
    )


def test_a_payment_with_history_is_compared_with_it() -> None:
    computed = features(payments([20, 40, 10], ["a"] * 3, **HISTORY))
    assert computed["amount_to_mean_30d"].to_list() == [2.0, 4.0, 1.0]
    assert computed["largest_to_mean_30d"].to_list() == [2.0, 4.0, 4.0]
    assert computed["unusual_known"].to_list() == [0.0, 1.0, 1.0]
    assert computed["mean_1d_to_30d"].to_list() == [1.8] * 3
    assert computed["mean_7d_to_30d"].to_list() == [2.7] * 3
    assert computed["terminal_frauds_7d"].to_list() == [7.0] * 3
    assert computed["card_count_30d"].to_list() == [30] * 3


def test_a_payment_without_history_has_null_for_what_is_made_of_it_and_all_else() -> None:
    with_it, without = (features(payments([20, 40, 10], ["a"] * 3, **more)) for more in (HISTORY, {}))
    of_history = [n for n in with_it.columns if without[n].null_count() == 3 and with_it[n].null_count() == 0]
    assert len(of_history) == 14
    assert_frame_equal(with_it.drop(of_history), without.drop(of_history))
    assert without["payments_known"].to_list() == [0.0, 1.0, 2.0]
    assert without["merchant_category"].to_list() == ["fuel"] * 3


def test_features_look_back_and_at_the_card_only() -> None:
    rows = payments([10, 20, 30, 40, 900, 900], ["a", "b"] * 3, **HISTORY)
    whole = features(rows)
    for until in (2, 4):
        assert_frame_equal(features(rows.head(until)), whole.head(until))
    assert whole["largest_to_mean_30d"].to_list()[2:4] == [3.0, 4.0]


def test_the_threshold_is_where_a_look_pays() -> None:
    probability, amount = np.array([0.9, 0.8, 0.4, 0.1]), np.array([100.0, 3.0, 50.0, 10.0])
    assert cheapest_threshold(probability, np.array([1, 0, 1, 0]), amount) == 0.4
    assert cheapest_threshold(probability, np.array([1, 0, 0, 0]), amount) == 0.9
    assert cheapest_threshold(probability, np.zeros(4), amount) == float("inf")


@pytest.mark.parametrize("model", [FRAUDS])
def test_the_model_is_declared_for_its_view(model: Model) -> None:
    model.check()
    assert model.threshold_by in model.view.features


def second_by_second(count: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Payments of which many are of one second, also of one card, and the reports of the frauds: large amounts."""
    chance = np.random.default_rng(seed)
    amounts = chance.lognormal(3, 1, count).round(2)
    rows = payments(amounts.tolist(), [f"c{n}" for n in chance.integers(0, 40, count)], **HISTORY)
    seconds = pl.Series(np.sort(chance.integers(0, 900, count)) * 3_600)
    rows = rows.with_columns(timestamp=datetime(2026, 5, 1, tzinfo=UTC) + pl.duration(seconds=seconds))
    of_frauds = rows.filter(pl.Series(amounts > 60) & pl.Series(chance.random(count) < 0.8))
    return rows, of_frauds.select(pl.col("timestamp") + timedelta(hours=1), "payment_id", "card")


def test_a_training_does_not_depend_on_the_order_of_the_files() -> None:
    """Payments of one second have no order of their own: the features, the split and the folds need one."""
    rows, reports = second_by_second(2_500, seed=1)
    model = replace(FRAUDS, space=None, label=replace(FRAUDS.label, within=timedelta(hours=2)))
    now = rows["timestamp"].max()
    assert isinstance(now, datetime)
    fits = []
    for seed in (1, 2):
        shuffled = features(rows.sample(fraction=1, shuffle=True, seed=seed)).sample(
            fraction=1, shuffle=True, seed=seed
        )
        truth = reports.sample(fraction=1, shuffle=True, seed=seed)
        fits.append(fit(model, shuffled, champion=None, now=now + timedelta(days=1), truth=truth))
    first, second = fits
    assert_frame_equal(first.parts.train, second.parts.train)
    assert_frame_equal(first.parts.held_out, second.parts.held_out)
    np.testing.assert_array_equal(first.predicted, second.predicted)
    assert first.scores == second.scores
