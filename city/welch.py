"""Welch's t-test: whether two means differ, where the spreads may differ too.

By `scipy.special` alone: `scipy.stats` is 80 MB, which every process that asks once would keep.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """What the test needs to know of a sample; `std` with Bessel's correction."""

    mean: float
    std: float
    count: int


@dataclass(frozen=True)
class Welch:
    """The difference of two means in standard errors, and the degrees of freedom of its distribution."""

    difference: float
    error: float
    freedom: float

    @property
    def statistic(self) -> float:
        """t: infinite where the samples have no spread but different means."""
        if self.error:
            return self.difference / self.error
        return math.copysign(math.inf, self.difference) if self.difference else 0.0

    @property
    def greater(self) -> float:
        """The p-value of "the first mean is not greater"."""
        from scipy import special

        return float(special.stdtr(self.freedom, -self.statistic))

    @property
    def different(self) -> float:
        """The p-value of "the means are equal"."""
        from scipy import special

        return float(2 * special.stdtr(self.freedom, -abs(self.statistic)))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Where the difference of the means lies at this level of confidence."""
        from scipy import special

        wide = float(special.stdtrit(self.freedom, (1 + level) / 2)) * self.error
        return self.difference - wide, self.difference + wide


def welch(first: Sample, second: Sample) -> Welch:
    """Compares the first sample's mean with the second's.

    Raises ValueError for a sample of fewer than two.
    """
    if min(first.count, second.count) < 2:
        raise ValueError("give at least two values of each sample")
    parts = [s.std**2 / s.count for s in (first, second)]
    variance = sum(parts)
    spread = sum(part**2 / (s.count - 1) for part, s in zip(parts, (first, second), strict=True))
    # Without any spread each number of degrees says the same.
    freedom = variance**2 / spread if spread else float(first.count + second.count - 2)
    return Welch(first.mean - second.mean, math.sqrt(variance), freedom)
