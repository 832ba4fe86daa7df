"""The anomaly detector on signals whose faults are known."""

import numpy as np
import pytest

from city_assets.equipment.models import AnomalyDetector

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
