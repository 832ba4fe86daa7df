"""What is known of a road network at a step is of that step and earlier ones."""

import numpy as np
import pytest

from city_assets.traffic.models import LAGS, Network


def speeds(steps: int = 700, detectors: int = 12) -> np.ndarray:
    chance = np.random.default_rng(0)
    return 50 + chance.normal(size=(steps, detectors)).cumsum(0).clip(-30, 15)


def test_features_look_back_only() -> None:
    rows, graph = speeds(), np.random.default_rng(1).random((12, 12))
    network = Network.learn(rows[:500], graph)
    at = np.array([520, 600])
    found = network.features(rows, at)
    changed = rows.copy()
    changed[601:] = -1
    changed[: 520 - LAGS + 1] = -1
    np.testing.assert_array_equal(network.features(changed, at), found)
    changed[600] += 1
    assert not np.array_equal(network.features(changed, at)[1], found[1])
    assert found.shape[:2] == (2, 12)
    assert np.isfinite(found).all()


def test_leaders_are_those_whose_changes_come_before() -> None:
    rows = speeds()
    rows[3:, 5] = rows[:-3, 2]  # the fifth does what the second did three steps ago
    network = Network.learn(rows, np.eye(12))
    assert network.leaders[5, 0] == 2
    assert 5 not in network.leaders[5]
    assert (network.weights == 0).all()


def test_less_than_a_day_is_too_little() -> None:
    with pytest.raises(ValueError, match="200 steps are too few"):
        Network.learn(speeds(200), np.eye(12))
