import numpy as np
import pytest

from simulators.world.chance import choice, normal, smooth, uniform

KEYS = np.arange(200_000)


def test_numbers_depend_on_seed_purpose_and_keys_alone() -> None:
    whole = uniform(3, "purpose", KEYS[:, None], np.arange(3))
    assert whole.shape == (200_000, 3)
    assert uniform(3, "purpose", 17, 2) == whole[17, 2]
    assert np.array_equal(uniform(3, "purpose", KEYS[::-1], 1), whole[::-1, 1])
    for other in (uniform(4, "purpose", KEYS, 1), uniform(3, "another", KEYS, 1), uniform(3, "purpose", KEYS, 9)):
        assert abs(np.corrcoef(other, whole[:, 1])[0, 1]) < 0.01
    assert uniform(3, "purpose", -5) != uniform(3, "purpose", 5)


def test_uniform_and_normal_numbers_have_their_distributions() -> None:
    from scipy.stats import kstest

    assert kstest(uniform(1, "u", KEYS), "uniform").pvalue > 0.001
    assert kstest(normal(1, "n", KEYS), "norm").pvalue > 0.001


def test_a_choice_follows_the_weights() -> None:
    counts = np.bincount(choice([1.0, 0.0, 3.0], 2, "c", KEYS), minlength=3)
    assert counts[1] == 0
    assert counts[2] / counts[0] == pytest.approx(3, rel=0.03)


def test_smooth_numbers_change_little_in_a_short_time_and_are_independent_after_a_period() -> None:
    seconds = np.arange(0, 4_000_000, 60.0)
    numbers = smooth(seconds, 3_600, 5, "s")
    assert numbers.std() == pytest.approx(1, abs=0.05)
    assert np.abs(np.diff(numbers)).max() < 0.25
    assert np.corrcoef(numbers[:-5], numbers[5:])[0, 1] > 0.95
    assert abs(np.corrcoef(numbers[:-120], numbers[120:])[0, 1]) < 0.1


@pytest.mark.parametrize("keys", [(), (np.array([-2, 0, 5]),)])
def test_many_moments_have_the_smooth_numbers_of_each(keys: tuple[np.ndarray, ...]) -> None:
    """They are looked up in a table of the few numbers that all are made of."""
    at = np.arange(-3_000.0, 9_000.0, 41.0)[:, None]
    many = smooth(at, 600.0, 3, "sky", *keys)
    each = [smooth(moment, 600.0, 3, "sky", *keys) for moment in at]
    assert np.allclose(many, np.stack(each), rtol=0, atol=1e-12)
