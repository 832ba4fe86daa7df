"""Tests of two versions that may be looked at after every outcome: their error rates hold however often one looks and
whenever one stops.

Ending is decided by betting (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B
2024): somebody who bets on "the difference is above zero", and may never lose more than there is, multiplies the stake
by 200 with a probability of at most 1/200 where it is not (Ville's inequality). That is exact for any number of
outcomes and any distribution, rare large losses included, for it needs no variance.

What is reported is an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform
central limit theory and asymptotic confidence sequences", Annals of Statistics 2024): an interval of the difference
that holds at all times at once.

Arrays may have leading dimensions: one test for each, side by side, as simulations want them.
"""

import math
from typing import Any

import numpy as np

from city.arrays import Floats

_STAKES = 0.98 / 2.0 ** np.arange(8)
"""Shares of the largest bet that cannot lose all, one gambler each. The best bet grows with the difference that there
is; with a factor of two between them, one gambler comes within a tenth of the best one's growth."""
_CLIP = 20.0
"""Losses without a bound are cut at so many mean losses of the champion: one absurd outcome decides nothing."""
_LEARNED = 20
"""Outcomes by which the mean loss is learned, before anything is bet."""
_TUNED_FOR = 2_000
"""Outcomes at which a confidence sequence of 95 % is narrowest, compared with an interval that is looked at once."""
_SPENT = -2 * math.log(0.05)
_DENSITY = (_SPENT + math.log(_SPENT) + 1) / _TUNED_FOR
"""The squared width of the prior on differences, in standard deviations of one outcome; the paper's choice for so
many outcomes."""


class Bets:
    """Evidence against "the mean difference is not above zero", from differences of which the lower bound is known
    before they come. `evidence` is an e-value: above 1/alpha it is wrong at most so often as alpha."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self._wealth = np.zeros((*shape, len(_STAKES)))  # logarithms
        self._largest = np.zeros(shape)
        self._evidence: Floats | None = None

    def expect(self, most_below: Floats | float) -> None:
        """Bets nothing on an outcome, and takes note of what could have been lost."""
        self._largest = np.maximum(self._largest, most_below)

    def observe(self, difference: Floats | float, most_below: Floats | float) -> None:
        """`difference` is at least `-most_below`, which may depend on all but the outcome itself. The bets are scaled
        by the largest bound so far, and so weigh each outcome alike."""
        self._largest = np.maximum(self._largest, most_below)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Where nothing can be lost, a gain is proof, and no gain is nothing.
            scaled = np.where(difference == 0, 0.0, np.divide(difference, self._largest))
        self._wealth += np.log1p(_STAKES * scaled[..., None])
        self._evidence = None

    @property
    def evidence(self) -> Floats:
        """The mean of the gamblers' wealth, each of which began with 1."""
        if self._evidence is None:
            with np.errstate(over="ignore"):
                self._evidence = np.exp(self._wealth).mean(-1)
        return self._evidence

    def state(self) -> dict[str, Any]:
        return {"wealth": self._wealth.tolist(), "largest": self._largest.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        self._wealth, self._largest = np.array(state["wealth"]), np.array(state["largest"])
        self._evidence = None


class LossTest:
    """Evidence that a version's mean loss is greater than the champion's, from both losses on the same outcomes."""

    def __init__(self, bounded: bool, shape: tuple[int, ...] = ()) -> None:
        self._bounded = bounded
        self._bets = Bets(shape)
        self._count = 0
        self._mean = np.zeros(shape)

    def observe(self, other: Floats | float, champion: Floats | float, most_gain: Floats | float) -> None:
        """`most_gain` is by how much the other's loss could have been below the champion's, whatever the outcome: two
        predictions are as far apart as they are before anything comes of them."""
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
        return self._bets.evidence

    def state(self) -> dict[str, Any]:
        return {"bets": self._bets.state(), "count": self._count, "mean": self._mean.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        self._bets.restore(state["bets"])
        self._count, self._mean = state["count"], np.array(state["mean"])


def p_value(difference: Floats | float, error: Floats | float, count: Floats | float) -> Floats:
    """Of "there is no difference", valid at all times at once: the smallest alpha whose confidence sequence leaves out
    zero. `error` is the difference's standard error, `count` how many outcomes there are, of two sides on the smaller:
    its mean is the one that must have settled."""
    prior = np.multiply(count, _DENSITY)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.where(np.equal(difference, 0), 0.0, np.divide(difference, error))
    found: Floats = np.minimum(1.0, np.sqrt(1 + prior) * np.exp(-(score**2) * prior / (1 + prior) / 2))
    return found


def interval(difference: float, error: float, count: float, level: float = 0.95) -> tuple[float, float]:
    """Where the true difference lies, at all times at once at this level of confidence."""
    prior = count * _DENSITY
    wide = error * math.sqrt((1 + 1 / prior) * (math.log1p(prior) - 2 * math.log(1 - level)))
    return difference - wide, difference + wide
