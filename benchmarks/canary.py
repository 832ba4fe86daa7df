"""Canaries: how often the sequential test ends a version that is as good as the champion, and after how many outcomes
one whose mean loss is 5 % greater. Looked at after every outcome, as the server does, by the server's own test.

Both versions are judged on the requests that the canary answered, so `outcomes` are those of the canary; of all
requests they are its share. Each kind of loss is of two versions that agree more or less: the closer they are, the
sooner a difference shows. Of A/B tests, in which each request is answered by one version, the p-value is looked at.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from city.arrays import Floats
from city.serving.sequential import LossTest, p_value
from city.serving.trial import LEAST_OUTCOMES, WORSE_LOSS

COMPARISONS, OUTCOMES, LONGEST = 1_000, 20_000, 200_000
SHARES = (0.05, 0.1)
_BLOCK = 500
_ALPHA = 0.01

Draw = Callable[[np.random.Generator, tuple[int, int], float], tuple[Floats, Floats, Floats]]
"""Losses of the canary and of the champion, and by how much the canary's could have been smaller, of a shape
(outcomes, comparisons). The last argument is how good the canary is; its meaning is the kind's own."""


@dataclass(frozen=True)
class Losses:
    """A kind of loss. `equal` is the canary's skill with which its mean loss is the champion's, `worse` with which it
    is 5 % more; `ratio` measures both."""

    draw: Draw
    bounded: bool
    equal: float
    worse: float

    def ratio(self, skill: float, outcomes: int = 1_000_000) -> float:
        """The canary's mean loss in the champion's."""
        canary, champion, _ = self.draw(np.random.default_rng(0), (outcomes, 1), skill)
        return float(canary.mean() / champion.mean())


def _absolute(own: float) -> Draw:
    """Absolute errors of a regression, of outcomes with heavy tails (Student's t, three degrees of freedom); each
    version errs by itself, the champion by a standard deviation of `own`."""

    def draw(chance: np.random.Generator, shape: tuple[int, int], skill: float) -> tuple[Floats, Floats, Floats]:
        outcome = chance.standard_t(3, shape)
        champion, canary = own * chance.normal(size=shape), skill * chance.normal(size=shape)
        return abs(outcome - canary), abs(outcome - champion), abs(canary - champion)

    return draw


def _errors(rate: float, moved: float) -> Draw:
    """Errors (0 or 1) of a classifier that is wrong at `rate`; of the champion's errors the share `moved` is none of
    the canary's, and others take their place."""

    def draw(chance: np.random.Generator, shape: tuple[int, int], skill: float) -> tuple[Floats, Floats, Floats]:
        place, gone = chance.random(shape), rate * moved
        champion = place < rate
        canary = (place >= gone) & (place < rate + gone * skill)
        return canary.astype(float), champion.astype(float), (champion != canary).astype(float)

    return draw


def _rare(sharpness: float) -> Draw:
    """Log losses of a rare class, one in a hundred. The canary is more cautious than the champion: a little worse on
    nearly all outcomes, much better on a few."""

    def draw(chance: np.random.Generator, shape: tuple[int, int], skill: float) -> tuple[Floats, Floats, Floats]:
        logit = chance.normal(-6.5, 1.9, shape)
        outcome = chance.random(shape) < 1 / (1 + np.exp(-logit))
        champion, canary = (1 / (1 + np.exp(-(logit * s + (s - 1) * 5))) for s in (sharpness, skill))
        of_class = [[-np.log(np.clip(p, 1e-4, 1)) for p in (1 - p_rare, p_rare)] for p_rare in (canary, champion)]
        most = np.maximum(*(abs(theirs - ours) for ours, theirs in zip(*of_class, strict=True)))
        canary_loss, champion_loss = (np.where(outcome, rare, usual) for usual, rare in of_class)
        return canary_loss, champion_loss, most

    return draw


KINDS: Mapping[str, Losses] = {
    "absolute error, close": Losses(_absolute(0.3), False, 0.3, 0.51),
    "absolute error, far apart": Losses(_absolute(1.0), False, 1.0, 1.134),
    "log loss, rare class": Losses(_rare(1.3), True, 0.6462, 0.4879),
    "0/1, close": Losses(_errors(0.1, 0.05), True, 1.0, 2.0),
    "0/1, far apart": Losses(_errors(0.3, 0.3), True, 1.0, 1 + 0.05 / 0.3),
}


def run(
    tell: Callable[[str], None], comparisons: int = COMPARISONS, outcomes: int = OUTCOMES, longest: int = LONGEST
) -> dict[str, Any]:
    kinds = {}
    for name, kind in KINDS.items():
        equal = ended_after(kind, False, comparisons, outcomes, seed=1)
        worse = ended_after(kind, True, comparisons, longest, seed=2)
        kinds[name] = {
            "wrongly_ended": round(float(np.isfinite(equal).mean()), 4),
            "worse_ended": round(float(np.isfinite(worse).mean()), 4),
            "worse_ended_after_median": _quantile(worse, 0.5),
            "worse_ended_after_p95": _quantile(worse, 0.95),
        }
        tell(f"{name}: {kinds[name]}")
    ab = {str(share): round(differing(share, comparisons, outcomes, seed=3), 4) for share in SHARES}
    tell(f"A/B tests of equal versions with p < {_ALPHA} at some time, by share: {ab}")
    return {
        "bench": "canary",
        "comparisons": comparisons,
        "outcomes": outcomes,
        "worse_by": 0.05,
        "kinds": kinds,
        "ab_wrongly_different": ab,
    }


def ended_after(kind: Losses, worse: bool, comparisons: int, outcomes: int, seed: int) -> Floats:
    """After how many outcomes of the canary each comparison ends; infinity for those that do not."""
    skill, chance = kind.worse if worse else kind.equal, np.random.default_rng(seed)
    test = LossTest(kind.bounded, (comparisons,))
    ended = np.full(comparisons, np.inf)
    for begin in range(0, outcomes, _BLOCK):
        for number, losses in enumerate(zip(*kind.draw(chance, (_BLOCK, comparisons), skill), strict=True), begin + 1):
            test.observe(*losses)
            ended[(test.evidence >= WORSE_LOSS) & np.isinf(ended)] = number
        if np.isfinite(ended).all():
            break
    return ended


def differing(share: float, comparisons: int, outcomes: int, seed: int) -> float:
    """The share of A/B tests of equal versions that ever say p < 0.01, in so many outcomes of the smaller side. Losses
    are absolute values of Student's t with three degrees of freedom."""
    chance = np.random.default_rng(seed)
    different = 0
    for _ in range(comparisons):
        of_b = chance.random(int(outcomes / share)) < share
        losses = abs(chance.standard_t(3, len(of_b)))
        sides = []
        for side in (of_b, ~of_b):
            count, total, squares = side.cumsum(), (losses * side).cumsum(), (losses**2 * side).cumsum()
            with np.errstate(divide="ignore", invalid="ignore"):
                sides.append((count, total / count, (squares / count - (total / count) ** 2) / count))
        least = np.minimum(sides[0][0], sides[1][0])
        difference, variance = sides[0][1] - sides[1][1], sides[0][2] + sides[1][2]
        looks = least >= LEAST_OUTCOMES
        different += bool((p_value(difference[looks], np.sqrt(variance[looks]), least[looks]) < _ALPHA).any())
    return different / comparisons


def _quantile(ended: Floats, at: float) -> float | None:
    quantile = float(np.quantile(ended, at, method="higher"))
    return quantile if math.isfinite(quantile) else None
