"""Features of payments look back only; probabilities are frequencies; the threshold is the cheapest."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from city_assets.payments.models import FEATURES, GIVEN, cheapest_threshold, fit_calibrated, fraud_features


def payments(amounts: list[float], cards: list[int]) -> pl.DataFrame:
    at = [datetime(2026, 5, 1) + timedelta(hours=12 * (n // 2)) for n in range(len(amounts))]  # in pairs
    known = {name: 9.0 if "mean" in name else 0.5 for name in GIVEN}
    rows = {"payment": range(len(amounts)), "card": cards, "terminal": 1, "at": at, "amount": amounts}
    return pl.DataFrame(rows | {"weekend": 0, "night": 1} | known)


def test_each_payment_has_its_own_features_though_two_are_at_once() -> None:
    found = fraud_features(payments([10, 20, 30, 40, 50, 60, 70, 80, 500, 10], [1] * 10))
    assert found["payment"].to_list() == list(range(10))
    assert not found.select(FEATURES).null_count().sum_horizontal()[0]
    assert found["amount_to_usual"].to_list()[:2] == [1.0, 2.0]
    assert found["largest_3d"].to_list()[-1] == 50.0
    assert found["count_3d"].to_list()[-1] == 10
    assert found["unusual_3d"].to_list()[-1] == 6


def test_features_look_back_and_at_the_card_only() -> None:
    rows = payments([10, 20, 30, 40, 900, 900], [1, 2, 1, 2, 1, 2])
    whole = fraud_features(rows)
    for until in (2, 4):
        assert fraud_features(rows.head(until)).equals(whole.head(until))
    assert whole["largest_3d"].to_list()[2:4] == [3.0, 4.0]


def test_probabilities_are_frequencies_and_keep_the_order() -> None:
    from sklearn.ensemble import RandomForestClassifier

    chance = np.random.default_rng(0)
    x = chance.normal(size=(4000, 3))
    y = (chance.random(4000) < 1 / (1 + np.exp(4 - 2 * x[:, 0]))).astype(int)
    model = fit_calibrated(RandomForestClassifier(50, min_samples_leaf=5, random_state=0), x, y, np.arange(4000) // 4)
    new = chance.normal(size=(20_000, 3))
    truth = 1 / (1 + np.exp(4 - 2 * new[:, 0]))
    probability = model.predict_proba(new)[:, 1]
    for low, high in ((0, 0.05), (0.05, 0.3), (0.3, 1)):
        within = (probability >= low) & (probability < high)
        assert abs(probability[within].mean() - truth[within].mean()) < 0.07
    with pytest.raises(ValueError, match="one class"):
        fit_calibrated(RandomForestClassifier(5), x, np.zeros(4000), np.arange(4000))


def test_the_threshold_is_where_a_look_pays() -> None:
    probability, amount = np.array([0.9, 0.8, 0.4, 0.1]), np.array([100.0, 3.0, 50.0, 10.0])
    assert cheapest_threshold(probability, np.array([1, 0, 1, 0]), amount) == 0.4
    assert cheapest_threshold(probability, np.array([1, 0, 0, 0]), amount) == 0.9
    assert cheapest_threshold(probability, np.zeros(4), amount) == float("inf")
