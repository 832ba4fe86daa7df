"""An experiment under way: how its two versions do, and whether the other one is surely worse.

Each of the three ways to be worse is judged by a test that may be looked at after every request and every outcome
(`city.serving.sequential`). All three together end a version that is as good as the champion in at most 1 % of
experiments.
"""

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

from city.serving.sequential import Bets, LossTest, interval, p_value

Kind = Literal["canary", "ab", "shadow"]
Role = Literal["champion", "canary", "b", "shadow", "control"]
"""Who answered. The control is the champion, asked beside a canary about the same input; its answer is only
recorded."""
ROLES: Mapping[Kind, Role] = {"canary": "canary", "ab": "b", "shadow": "shadow"}
BESIDE: frozenset[str] = frozenset({"shadow", "control"})
"""Roles whose answers nobody was given."""

WORSE_LOSS = 1 / 0.005
WORSE_ERRORS = 1 / 0.0025
WORSE_LATENCY = 1 / 0.0025
"""Evidence at which a canary is ended; the probabilities of a wrong end add up to 1 %."""
LEAST_OUTCOMES = 30
_MOST = 1e12
"""Evidence is reported up to here."""
_RECENT = 500
_SLACK_MS = 2.0
"""Of latencies: less than this is no difference worth ending a canary for."""
_FRESH = 10
"""After so many requests the champion's median is taken again: it sorts."""


@dataclass(frozen=True)
class Limits:
    """What a canary may do before it is ended."""

    error_rate: float = 0.02
    latency_ratio: float = 2.0
    least_requests: int = 50
    """Before so many requests of each version were timed no latency counts: the first ones warm it, and tell what is
    usual."""


@dataclass(frozen=True)
class Experiment:
    """Another version beside the champion. `share` of the requests, or of the keys, go to it."""

    kind: Kind
    version: int
    share: float = 0.1
    limits: Limits = field(default_factory=Limits)
    by: str = ""
    since: float = 0.0


@dataclass
class Spread:
    """Welford's running mean and variance."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        apart = value - self.mean
        self.mean += apart / self.count
        self.squares += apart * (value - self.mean)

    @property
    def variance(self) -> float:
        return self.squares / (self.count - 1) if self.count > 1 else 0.0


@dataclass
class Arm:
    """How one side of an experiment does."""

    requests: int = 0
    errors: int = 0
    timed: int = 0
    """Of the requests those that a model was run for, and answered."""
    losses: Spread = field(default_factory=Spread)
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT), repr=False)
    """Of the newest requests, in milliseconds."""

    def answered(self, milliseconds: float | None) -> None:
        self.requests += 1
        if milliseconds is not None:
            self.timed += 1
            self.latencies.append(milliseconds)

    def failed(self) -> None:
        self.requests += 1
        self.errors += 1

    @property
    def latency_ms(self) -> float | None:
        return median(self.latencies) if self.latencies else None

    @property
    def error_rate(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    def summary(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "errors": self.errors,
            "latency_ms": self.latency_ms,
            "outcomes": self.losses.count,
            "loss": self.losses.mean if self.losses.count else None,
        }

    def state(self) -> dict[str, Any]:
        return asdict(self) | {"latencies": list(self.latencies)}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Arm":
        latencies = deque(state["latencies"], maxlen=_RECENT)
        requests, errors = state["requests"], state["errors"]
        # Before `timed` was kept, answers from memory were not counted at all.
        return cls(requests, errors, state.get("timed", requests - errors), Spread(**state["losses"]), latencies)


class Trial:
    """An experiment's version against one champion. A champion that is swapped meanwhile makes it a new trial: what
    was counted of another champion says nothing of this one."""

    def __init__(self, experiment: Experiment, champion: int, bounded: bool) -> None:
        """`bounded`: whether the model's losses have an upper bound."""
        self.experiment, self.champion_version = experiment, champion
        self.role = ROLES[experiment.kind]
        self.id = f"{experiment.kind}-{experiment.version}-{champion}-{experiment.since:.6f}"
        """What predictions are recorded with, so that their outcomes count here and nowhere else."""
        self.champion, self.other = Arm(), Arm()
        self.differences = Spread()
        """Of the losses of both versions on the same outcomes."""
        self.applied = time.time()
        """When the newest outcome that is counted here came, in seconds; none from before it began is of it."""
        self._loss = LossTest(bounded)
        self._over_limit, self._over_champion, self._slower = Bets(), Bets(), Bets()
        self._slow_ms: float | None = None

    def arm(self, role: str) -> Arm:
        return self.other if role == self.role else self.champion

    def answered(self, role: Role, milliseconds: float | None) -> None:
        """Counts an answer; without a latency where it was remembered and no model was run."""
        if role == self.role:
            self._over_limit.observe(-self.experiment.limits.error_rate, self.experiment.limits.error_rate)
            if milliseconds is not None:
                self._bet_on_latency(milliseconds)
        self.arm(role).answered(milliseconds)

    def failed(self, role: Role) -> None:
        self.arm(role).failed()
        if role == self.role:
            limit = self.experiment.limits.error_rate
            self._over_limit.observe(1 - limit, limit)

    def failed_beside(self, other: bool, champion: bool) -> None:
        """Which of the two failed at one input: what both fail at is not the other version's fault."""
        self._over_champion.observe(float(other) - float(champion), 1.0)

    def judged(self, at: float, role: str, loss: float) -> None:
        self.arm(role).losses.add(loss)
        self.applied = max(self.applied, at)

    def paired(self, other: float, champion: float, most_gain: float) -> None:
        """Compares both versions' losses on one outcome. `most_gain` is by how much the other's could have been below
        the champion's, whatever came."""
        self.differences.add(other - champion)
        self._loss.observe(other, champion, most_gain)

    def worse(self) -> str | None:
        """Why a canary is to be ended, or None."""
        other = self.other
        if min(self._over_limit.evidence, self._over_champion.evidence) >= WORSE_ERRORS:
            return f"{other.errors} of {other.requests} requests failed"
        if self._slower.evidence >= WORSE_LATENCY:
            return f"it takes {other.latency_ms:.1f} ms, the champion {self.champion.latency_ms:.1f} ms"
        if self._loss.evidence >= WORSE_LOSS:
            more, count = self.differences.mean, self.differences.count
            return f"its loss is {more:.4g} above the champion's, on {count:,} outcomes of both"
        return None

    def report(self) -> dict[str, Any]:
        return {
            **asdict(self.experiment),
            "champion": self.champion_version,
            "arms": {"champion": self.champion.summary(), self.role: self.other.summary()},
            "comparison": self.comparison(),
        }

    def comparison(self) -> dict[str, Any] | None:
        """The difference of the mean losses (the other's less the champion's), with a 95 % interval and a p-value that
        may be looked at at any time; None while too few outcomes are known. `evidence` ends a canary at `ends_at`."""
        paired = self.experiment.kind != "ab"
        if paired:
            difference, count = self.differences.mean, self.differences.count
            variance = self.differences.variance / max(count, 1)
        else:
            arms = (self.other.losses, self.champion.losses)
            difference = arms[0].mean - arms[1].mean
            count = min(arm.count for arm in arms)
            variance = sum(arm.variance / max(arm.count, 1) for arm in arms)
        if count < LEAST_OUTCOMES:
            return None
        error = math.sqrt(variance)
        low, high = interval(difference, error, count)
        found = {
            "difference": difference,
            "low": low,
            "high": high,
            "p_value": float(p_value(difference, error, count)),
        }
        # Of a shadow nothing ends it, and JSON knows no infinity.
        evidence = {"evidence": min(float(self._loss.evidence), _MOST), "ends_at": WORSE_LOSS} if paired else {}
        return {**found, "outcomes": count, **evidence}

    def state(self) -> dict[str, Any]:
        return {
            "champion_version": self.champion_version,
            "champion": self.champion.state(),
            "other": self.other.state(),
            "differences": asdict(self.differences),
            "applied": self.applied,
            "tests": {name: test.state() for name, test in self._tests().items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.champion, self.other = Arm.of(state["champion"]), Arm.of(state["other"])
        self.differences = Spread(**state["differences"])
        self.applied = state["applied"]
        for name, test in self._tests().items():
            test.restore(state["tests"][name])

    def _tests(self) -> dict[str, Bets | LossTest]:
        return {
            "loss": self._loss,
            "over_limit": self._over_limit,
            "over_champion": self._over_champion,
            "slower": self._slower,
        }

    def _bet_on_latency(self, milliseconds: float) -> None:
        """Whether the half of its requests take longer than they may, a bet on each after the first ones."""
        limits = self.experiment.limits
        if min(self.other.timed, self.champion.timed) < limits.least_requests:
            return
        if self._slow_ms is None or self.other.timed % _FRESH == 0:
            usual = self.champion.latency_ms
            self._slow_ms = None if usual is None else limits.latency_ratio * usual + _SLACK_MS
        if self._slow_ms is not None:
            self._slower.observe(0.5 if milliseconds > self._slow_ms else -0.5, 0.5)
