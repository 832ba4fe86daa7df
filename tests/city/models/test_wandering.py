"""What is normal where signals wander: by components of variance, exported whole, and the wrong signal is named."""

import numpy as np
import pytest

from city.models.anomaly import SCORE, SHARES, SURPRISE, NormalRegion
from city.models.exported import Exported, export
from city.models.wandering import WanderingRegion, components_of_variance
from city_assets.equipment.models import ANOMALIES

WINDOW, FITTED = 10, 400
STILL, WANDERS, RELATED, SPREAD, CONSTANT = 0, 1, 2, 4, 5


def rows(count: int, seed: int = 0) -> np.ndarray:
    """Trailing means of a signal that holds still, of one that wanders and of two that go together, the spread of one,
    and a constant."""
    chance = np.random.default_rng(seed)
    still, first, noise = chance.normal(size=(3, count))
    wanders = np.cumsum(chance.normal(0, 0.1, count)) + 0.5 * chance.normal(size=count)
    signals = np.column_stack([still, wanders, first, first + 0.2 * noise])
    trailing = [signals[max(0, row + 1 - WINDOW) : row + 1] for row in range(count)]
    means = np.array([window.mean(0) for window in trailing])
    spread = np.array([window[:, STILL].std() for window in trailing])
    return np.column_stack([20 + means, spread, np.full(count, 7.0)]).astype(np.float32)


def fitted(seed: int = 0, **parameters: float) -> tuple[WanderingRegion, np.ndarray]:
    """A region that is fitted on the first rows, and the rows that follow."""
    x = rows(2 * FITTED, seed)
    return WanderingRegion(window=WINDOW, related=4, **parameters).fit(x[:FITTED]), x[FITTED:]


def shifted(x: np.ndarray, column: int, by: float) -> np.ndarray:
    changed = x.copy()
    changed[:, column] += by
    return changed


def test_its_onnx_form_says_the_same_with_gaps_too() -> None:
    x = rows(1_000)
    x[::7, STILL], x[::5, SPREAD] = np.nan, np.nan
    region = WanderingRegion(window=WINDOW, related=4).fit(x)
    far = shifted(x, STILL, 3)
    exported = Exported(ANOMALIES, export(ANOMALIES, region, np.vstack([x, far])))
    for sample in (x, far, np.full((1, 6), np.nan, np.float32)):
        np.testing.assert_allclose(exported.predict(sample), region.predict(sample), rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(exported.predict(sample)[:, SHARES:].sum(1), 1, atol=1e-5)


def test_a_signal_may_go_on_as_it_went_and_one_that_held_still_may_not() -> None:
    """The same distance is normal for the first and a fault of the second."""
    wandering, still = [], []
    for seed in range(8):
        region, later = fitted(seed, threshold=1e9)
        middle = np.tile(region.centre_, (1, 1)).astype(np.float32)
        wandering.append(region.predict(shifted(middle, WANDERS, 3))[0, SCORE])
        still.append(region.predict(shifted(middle, STILL, 3))[0, SCORE])
        assert np.isfinite(region.predict(later)).all()
    assert np.median(wandering) < 1 < min(still)


def test_fewer_rows_are_false_alarms_than_of_a_region_that_expects_no_wandering() -> None:
    """Where both find a fault in the signal that holds still as often."""
    false, missed = [], []
    for seed in range(8):
        region, later = fitted(seed, threshold=1e9)
        plain = NormalRegion(explained=0.99).fit(rows(2 * FITTED, seed)[:FITTED, :4])
        wrong = shifted(later, STILL, 2)
        ours = (region.predict(later)[:, SCORE], region.predict(wrong)[:, SCORE])
        plains = (plain.predict(later[:, :4])[:, SCORE], plain.predict(wrong[:, :4])[:, SCORE])
        false.append([(normal > np.quantile(faulty, 0.1)).mean() for normal, faulty in (ours, plains)])
        missed.append((region.predict(wrong)[:, SCORE] <= 1).mean())
    ours, plains = np.mean(false, axis=0)
    assert ours < 0.5 * plains
    assert np.mean(missed) < 0.1


@pytest.mark.parametrize(("column", "by"), [(STILL, 3.0), (SPREAD, 1.5), (RELATED, 2.0)])
def test_the_wrong_signal_is_named(column: int, by: float) -> None:
    region, later = fitted(3)
    said = region.predict(shifted(later, column, by))
    assert (said[:, SCORE] > 1).mean() > 0.95
    named = said[:, SHARES:].argmax(1)
    # Where a relation is broken, either of the two signals can be the one that is wrong.
    alike = (RELATED, RELATED + 1) if column == RELATED else (column,)
    assert np.isin(named, alike).mean() > 0.9
    np.testing.assert_allclose(said[:, SHARES:].sum(1), 1)
    assert (said[:, SHARES + CONSTANT] == 0).all()


def test_a_broken_relation_is_found_though_each_signal_is_in_range() -> None:
    region, later = fitted(3)
    alone = WanderingRegion(window=WINDOW, related=4, threshold=1e9).fit(rows(2 * FITTED, 3)[:FITTED])
    broken = later.copy()
    broken[:, RELATED] = 40 - broken[:, RELATED]
    apart = np.abs(broken[:, RELATED] - broken[:, RELATED + 1]) > 0.8
    assert (region.predict(broken[apart])[:, SCORE] > 1).all()
    assert (alone.predict(broken[apart])[:, SCORE] > 1).mean() < 0.5


def test_the_surprise_is_that_of_the_related_inputs() -> None:
    region, later = fitted()
    plain = NormalRegion(explained=0.99, threshold=region.threshold).fit(rows(2 * FITTED)[:FITTED, :4])
    np.testing.assert_allclose(region.predict(later)[:, SURPRISE], plain.predict(later[:, :4])[:, SURPRISE])


def test_noise_has_no_slow_part_and_a_random_walk_has() -> None:
    chance = np.random.default_rng(1)
    raw = np.column_stack([chance.normal(size=4_009), np.cumsum(chance.normal(size=4_009))])
    means = np.lib.stride_tricks.sliding_window_view(raw, WINDOW, axis=0).mean(-1)
    few, many = (components_of_variance(means, WINDOW, growth).variance for growth in (0, 10))
    assert many[0] == pytest.approx(few[0], rel=0.1)
    assert many[0] == pytest.approx(1 / WINDOW, rel=0.25)
    assert many[1] > 50 * few[1]


def test_what_it_cannot_be_fitted_on_is_named() -> None:
    with pytest.raises(ValueError, match="100 rows are too few: it takes 120, for means over 10"):
        WanderingRegion(window=WINDOW).fit(rows(100))
    with pytest.raises(ValueError, match="every input is constant"):
        WanderingRegion(window=WINDOW).fit(np.ones((FITTED, 3)))
