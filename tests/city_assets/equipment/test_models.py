"""The anomaly detector on signals whose faults are known, and the features of wear."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from city_assets.equipment.contract import SIGNALS as FLEET_SIGNALS
from city_assets.equipment.models import ACTIONS, LIFE, WINDOW, AnomalyDetector, life_features, life_message, nasa_score

SIGNALS = 5


def signals(rows: int, seed: int = 0) -> np.ndarray:
    """Three signals that go together, one of their own, and one that is constant."""
    chance = np.random.default_rng(seed)
    load = chance.normal(size=(rows, 1))
    together = load * [1.0, -2.0, 0.5] + 0.1 * chance.normal(size=(rows, 3))
    return np.column_stack([10 + together, chance.normal(5, 0.5, rows), np.full(rows, 7.0)])


def test_normal_rows_are_normal_and_a_shifted_signal_is_named() -> None:
    detector = AnomalyDetector().fit(signals(600))
    assert (detector.scores(signals(300, seed=2)) > detector.threshold).mean() < 0.02
    faulty = signals(100, seed=3)
    faulty[:, 3] += 4
    for row in faulty:
        score, shares = detector.watch(row)
    assert score > detector.threshold
    assert shares.sum() == pytest.approx(1)
    assert int(np.argmax(shares)) == 3
    assert shares[4] == 0


def test_a_broken_relation_is_seen_though_each_signal_is_in_range() -> None:
    detector = AnomalyDetector(smoothing=1).fit(signals(600))
    rows = signals(100, seed=4)
    rows[:, 0] = 20 - rows[:, 0]
    assert (detector.scores(rows) > detector.threshold).mean() > 0.5


def test_the_centre_follows_slow_change_and_stands_still_in_a_fault() -> None:
    slow = signals(3000, seed=5)
    slow[:, 3] += np.linspace(0, 6, 3000)
    assert (AnomalyDetector().fit(signals(600)).scores(slow) > 3).mean() < 0.02
    assert (AnomalyDetector(adaption=0).fit(signals(600)).scores(slow) > 3).mean() > 0.5
    stays = signals(3000, seed=6)
    stays[:, 3] += 6
    assert (AnomalyDetector().fit(signals(600)).scores(stays)[50:] > 3).all()


def test_what_it_cannot_be_fitted_on_is_named() -> None:
    with pytest.raises(ValueError, match="9 normal rows are too few"):
        AnomalyDetector().fit(signals(9))
    with pytest.raises(ValueError, match="finite"):
        AnomalyDetector().fit(np.where(np.arange(SIGNALS) == 2, np.nan, signals(100)))
    with pytest.raises(ValueError, match="every signal is constant"):
        AnomalyDetector().fit(np.ones((100, 3)))


def test_features_of_wear_look_back_only() -> None:
    rows = signals(80)
    features = life_features(rows)
    assert features.shape == (80 - WINDOW + 1, 9 * SIGNALS + 1)
    np.testing.assert_allclose(life_features(rows[:50])[-1], features[50 - WINDOW])
    assert features[0, -1] == WINDOW
    with pytest.raises(ValueError, match="29 cycles are too few"):
        life_features(rows[:29])


def test_late_costs_more_than_early() -> None:
    assert nasa_score(np.array([110.0]), np.array([100.0])) > nasa_score(np.array([90.0]), np.array([100.0])) > 0


def test_what_to_do_follows_from_the_least_life_that_is_left() -> None:
    said = pl.DataFrame(
        {
            "timestamp": datetime(2026, 5, 4, tzinfo=UTC),
            "machine_id": "pump_001",
            "output": [[0.9], [0.5], [0.35], [0.08], [-0.02], [0.5]],
            "low": [0.8, 0.4, 0.2, 0.01, -0.1, None],
            "high": [1.0, 0.6, 0.5, 0.2, 0.1, None],
            "contributions": [None, None, None, dict.fromkeys(LIFE.inputs, 0.25), None, None],
        }
    )
    found = life_message(said)
    assert found["priority"].to_list() == ["low", "medium", "high", "critical", "critical", "medium"]
    assert found["recommended_action"][3] == ACTIONS[0][1]
    assert found["predicted_rul_hours"].min() == 0
    per_signal = len(LIFE.inputs) / len(FLEET_SIGNALS) * 0.25
    assert found["feature_contributions"].to_list()[2:4] == [None, dict.fromkeys(FLEET_SIGNALS, per_signal)]
    assert found["confidence_interval"].to_list()[1] == [0.4, 0.6]
    assert found["confidence_interval"].to_list()[4] == [0.0, 0.1]
