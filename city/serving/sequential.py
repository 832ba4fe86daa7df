"""Sequential tests of two versions. Their error rates hold however often the result is read and whenever the test
stops.

Betting decides when a canary ends (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
JRSS B 2024). A gambler bets on "the difference is above zero" and never loses more than the stake. If the difference is
not above zero, the gambler multiplies the stake by 200 with a probability of at most 1/200 (Ville's inequality). That
is exact for any number of outcomes and any distribution, including rare large losses, because it needs no variance.

The report has an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central
limit theory and asymptotic confidence sequences", Annals of Statistics 2024): an interval of the difference that holds
at all times simultaneously.

Arrays may have leading dimensions. Each element is then a test of its own, as simulations need it.
"""

import math
from typing import Any

import numpy as np

from city.arrays import Floats

_STAKES = 0.98 / 2.0 ** np.arange(8)
"""The stake of each gambler, as a share of the largest bet that cannot lose everything. The best stake grows with the
true difference. With a factor of two between stakes, one gambler comes within a tenth of the best gambler's growth."""
_CLIP = 20.0
"""Unbounded losses are cut at this multiple of the champion's mean loss, so that one absurd outcome decides nothing."""
_LEARNED = 20
"""Number of outcomes from which the mean loss is estimated before the first bet."""
_TUNED_FOR = 2_000
"""Number of outcomes at which a 95 % confidence sequence is narrowest, compared with an interval that is read once."""
_SPENT = -2 * math.log(0.05)
_DENSITY = (_SPENT + math.log(_SPENT) + 1) / _TUNED_FOR
"""The squared width of the prior on differences, in standard deviations of one outcome. It is the paper's choice for
`_TUNED_FOR` outcomes."""


class Bets:
    """Collects evidence against "the mean difference is not above zero", from differences whose lower bound is known in
    advance. `evidence` is an e-value: it wrongly exceeds 1/alpha with a probability of at most alpha. `shape` is the
    shape of the tests that run side by side."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self._wealth = np.zeros((*shape, len(_STAKES)))  # logarithms
        self._largest = np.zeros(shape)
        self._evidence: Floats | None = None

    def expect(self, most_below: Floats | float) -> None:
        """Notes how much an outcome could have lost, without a bet on it. `most_below` has the shape of the tests."""
        self._largest = np.maximum(self._largest, most_below)

    def observe(self, difference: Floats | float, most_below: Floats | float) -> None:
        """Bets on one outcome. `difference` is at least `-most_below`, which may depend on everything except the
        outcome. Both have the shape of the tests. The bets are scaled by the largest bound so far, so that all outcomes
        have the same weight."""
        self._largest = np.maximum(self._largest, most_below)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Where nothing can be lost, a gain is proof, and a zero difference changes nothing.
            scaled = np.where(difference == 0, 0.0, np.divide(difference, self._largest))
        self._wealth += np.log1p(_STAKES * scaled[..., None])
        self._evidence = None

    @property
    def evidence(self) -> Floats:
        """The mean of the gamblers' wealth. Each gambler begins with 1."""
        if self._evidence is None:
            with np.errstate(over="ignore"):
                self._evidence = np.exp(self._wealth).mean(-1)
        return self._evidence

    def state(self) -> dict[str, Any]:
        """Returns the state for JSON."""
        return {"wealth": self._wealth.tolist(), "largest": self._largest.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from the result of `state`."""
        self._wealth, self._largest = np.array(state["wealth"]), np.array(state["largest"])
        self._evidence = None


class LossTest:
    """Collects evidence that a version's mean loss is greater than the champion's, from the losses of both on the same
    outcomes. `bounded` tells whether losses have an upper bound; other losses are cut at `_CLIP` mean losses."""

    def __init__(self, bounded: bool, shape: tuple[int, ...] = ()) -> None:
        self._bounded = bounded
        self._bets = Bets(shape)
        self._count = 0
        self._mean = np.zeros(shape)

    def observe(self, other: Floats | float, champion: Floats | float, most_gain: Floats | float) -> None:
        """Counts one outcome. `most_gain` is the most by which the other version's loss could have been below the
        champion's, over all outcomes. It follows from the two predictions and is known before the outcome. All have the
        shape of the tests."""
        if not self._bounded and self._count >= _LEARNED:
            cut = np.where(self._mean > 0, _CLIP * self._mean, np.inf)
            other, champion, most_gain = (np.minimum(value, cut) for value in (other, champion, most_gain))
        if self._count >= _LEARNED:
            self._bets.observe(np.subtract(other, champion), most_gain)
        else:
            self._bets.expect(most_gain)
        self._count += 1
        self._mean = self._mean + (champion - self._mean) / self._count

    @property
    def evidence(self) -> Floats:
        """The e-value of the bets."""
        return self._bets.evidence

    def state(self) -> dict[str, Any]:
        """Returns the state for JSON."""
        return {"bets": self._bets.state(), "count": self._count, "mean": self._mean.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from the result of `state`."""
        self._bets.restore(state["bets"])
        self._count, self._mean = state["count"], np.array(state["mean"])


def p_value(difference: Floats | float, error: Floats | float, count: Floats | float) -> Floats:
    """Returns the p-value of "there is no difference", which is valid at all times simultaneously. It is the smallest
    alpha whose confidence sequence excludes zero. `error` is the difference's standard error. `count` is the number of
    outcomes; for two separate sides it is the smaller number, because the mean of that side must have settled. The
    arguments are broadcast against each other."""
    prior = np.multiply(count, _DENSITY)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.where(np.equal(difference, 0), 0.0, np.divide(difference, error))
    probability: Floats = np.minimum(1.0, np.sqrt(1 + prior) * np.exp(-(score**2) * prior / (1 + prior) / 2))
    return probability


def interval(difference: float, error: float, count: float, level: float = 0.95) -> tuple[float, float]:
    """Returns the bounds of the true difference, which hold at all times simultaneously with the confidence `level`.
    `error` is the difference's standard error, `count` the number of outcomes as for `p_value`."""
    prior = count * _DENSITY
    half_width = error * math.sqrt((1 + 1 / prior) * (math.log1p(prior) - 2 * math.log(1 - level)))
    return difference - half_width, difference + half_width
