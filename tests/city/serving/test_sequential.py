"""Tests that may be looked at after every outcome: how often they are wrong, and how soon they are right."""

import json

import numpy as np
import pytest

from benchmarks import canary
from city.models.model import models
from city.serving.outcome_losses import most_gain
from city.serving.sequential import Bets, LossTest, interval, p_value

ALPHA = 0.01
FRAUDS = models()["payment_fraud"]


@pytest.mark.parametrize("kind", canary.KINDS)
def test_the_kinds_of_losses_are_as_equal_and_as_much_worse_as_they_say(kind: str) -> None:
    losses = canary.KINDS[kind]
    assert losses.ratio(losses.equal) == pytest.approx(1, abs=0.01)
    assert losses.ratio(losses.worse) == pytest.approx(1.05, abs=0.01)
    canary_loss, champion_loss, most_gain = losses.draw(np.random.default_rng(1), (1_000, 1), losses.worse)
    assert (champion_loss - canary_loss <= most_gain + 1e-12).all()


@pytest.mark.parametrize("kind", canary.KINDS)
def test_equal_versions_are_ended_in_at_most_one_comparison_of_a_hundred(kind: str, unmeasured: None) -> None:
    ended = canary.ended_after(canary.KINDS[kind], worse=False, comparisons=200, outcomes=2_000, seed=1)
    assert np.isfinite(ended).mean() <= ALPHA


def test_a_worse_version_is_ended_and_the_sooner_the_less_the_two_disagree_elsewhere(unmeasured: None) -> None:
    close, far = (
        canary.ended_after(canary.KINDS[kind], worse=True, comparisons=40, outcomes=8_000, seed=2)
        for kind in ("absolute error, close", "absolute error, far apart")
    )
    assert np.isfinite(close).all()
    assert np.isfinite(far).mean() >= 0.95
    assert np.median(close) < np.median(far) / 2


@pytest.mark.parametrize("share", canary.SHARES)
def test_two_sides_of_unequal_size_are_called_different_no_more_often(share: float, unmeasured: None) -> None:
    assert canary.differing(share, comparisons=100, outcomes=2_000, seed=3) <= 2 * ALPHA


def test_rare_large_gains_are_waited_for(unmeasured: None) -> None:
    """A version that is a little worse nearly always and much better rarely looks worse for long: a test that knew only
    the spread so far would end it within tens of outcomes."""
    chance = np.random.default_rng(3)
    bets = Bets((500,))
    ended = np.zeros(500, bool)
    for _ in range(2_000):
        rare = chance.random(500) < 0.01
        bets.observe(np.where(rare, -0.99, 0.01), 0.99)
        ended |= bets.evidence >= 1 / ALPHA
    assert ended.mean() <= ALPHA


def test_what_cannot_lose_is_proof_and_what_never_differs_is_nothing() -> None:
    bets = Bets()
    bets.observe(0.0, 0.0)
    assert bets.evidence == 1
    bets.observe(0.5, 0.0)
    assert bets.evidence == np.inf
    bets.observe(-0.5, 0.5)
    assert bets.evidence == np.inf


def test_two_classifiers_that_are_as_good_as_sure_are_not_told_apart_by_a_hair() -> None:
    """Now one is a little surer, now the other."""
    chance, sure, surer = np.random.default_rng(7), [1e-5, 1 - 1e-5], [2e-5, 1 - 2e-5]
    for _ in range(50):
        test = LossTest(bounded=True)
        for swapped in chance.random(200) < 0.5:
            other, champion = (sure, surer) if swapped else (surer, sure)
            losses = (-np.log(version[1]) for version in (other, champion))
            test.observe(*losses, most_gain(FRAUDS, other, champion))
            assert test.evidence < 1 / ALPHA


def test_one_absurd_outcome_decides_nothing() -> None:
    chance, test = np.random.default_rng(4), LossTest(bounded=False)
    for _ in range(100):
        loss = chance.exponential()
        test.observe(loss, loss + chance.normal(0, 0.1), 1.0)
    test.observe(1e9, 0.0, 1e9)
    assert test.evidence < 10
    for _ in range(2_000):
        loss = chance.exponential()
        test.observe(loss + 0.5, loss, 1.0)
    assert test.evidence > 1 / ALPHA  # and it is not deaf from then on


def test_a_test_goes_on_where_it_was_written_down() -> None:
    chance = np.random.default_rng(5)
    whole, first, second = (LossTest(bounded=False) for _ in range(3))
    losses = chance.exponential(size=(200, 2))
    for row in losses[:120]:
        first.observe(*row, 20.0)
    second.restore(json.loads(json.dumps(first.state())))
    for row in losses[120:]:
        second.observe(*row, 20.0)
    for row in losses:
        whole.observe(*row, 20.0)
    assert second.evidence == whole.evidence != 1


def test_an_interval_holds_at_all_times_at_once(unmeasured: None) -> None:
    chance = np.random.default_rng(6)
    values = chance.exponential(size=(400, 3_000)) - 1
    counts = np.arange(1, 3_001)
    means = values.cumsum(1) / counts
    errors = np.sqrt((values**2).cumsum(1) / counts - means**2) / np.sqrt(counts)
    looks = [
        (m, e, n) for row in zip(means, errors, strict=True) for m, e, n in [*zip(*row, counts, strict=True)][29::50]
    ]
    outside = np.array([not low <= 0 <= high for low, high in (interval(*look) for look in looks)]).reshape(400, -1)
    assert outside.any(1).mean() <= 0.05
    once = np.abs(means[:, 29::50] / errors[:, 29::50]) > 1.96
    assert once.any(1).mean() > 0.2  # what an interval for one look would have said
    for difference, error, count in ((0.3, 0.1, 500), (0.5, 0.1, 500), (0.25, 0.05, 90_000)):
        low, _ = interval(difference, error, count, 1 - float(p_value(difference, error, count)))
        assert low == pytest.approx(0, abs=1e-9)
    assert (p_value(0.0, 0.0, 50), p_value(0.1, 0.0, 50)) == (1.0, 0.0)
