"""A running experiment: the results of its two versions, and tests of whether the other version is worse.

A version can be worse in errors, in latency and in loss. A sequential test judges each of the three; it may be read
after every request and every outcome (`city.serving.sequential`). All tests together end a version that is as good as
the champion in at most 1 % of experiments.
"""

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from city.serving.responses import ArmSummary, Comparison, ExperimentReport
from city.serving.roles import ROLES, Kind, Role
from city.serving.sequential import Bets, LossTest, interval, p_value

WORSE_LOSS = 1 / 0.005
WORSE_ERRORS = 1 / 0.0025
WORSE_LATENCY = 1 / 0.0025
"""Evidence at which a canary is ended. The probabilities of a wrong end add up to 1 %."""
LEAST_OUTCOMES = 30
_MOST = 1e12
"""Largest evidence that is reported."""
_RECENT = 500
_SLACK_MS = 2.0
"""A smaller difference of latencies is no reason to end a canary."""
_FRESH = 10
"""Number of requests after which the champion's median latency is computed again, which sorts."""


@dataclass(frozen=True)
class Limits:
    """The limits at which a canary is ended."""

    error_rate: float = 0.02
    """The share of failed requests, from 0 to 1."""
    latency_ratio: float = 2.0
    """The canary's median latency over the champion's."""
    least_requests: int = 50
    """Number of timed requests of each version before latencies count. The first requests warm the version up and show
    the usual latency."""


@dataclass(frozen=True)
class Experiment:
    """Another version beside the champion. It gets `share` of the requests, or of the keys for an A/B test."""

    kind: Kind
    version: int
    share: float = 0.1
    limits: Limits = field(default_factory=Limits)
    by: str = ""
    since: float = 0.0
    """The start, in seconds since the epoch."""

    def report(self) -> ExperimentReport:
        """Returns the experiment without results, for JSON."""
        return {
            "kind": self.kind,
            "version": self.version,
            "share": self.share,
            "limits": {
                "error_rate": self.limits.error_rate,
                "latency_ratio": self.limits.latency_ratio,
                "least_requests": self.limits.least_requests,
            },
            "by": self.by,
            "since": self.since,
            "arms": {},
            "comparison": None,
        }


@dataclass
class Spread:
    """Welford's running mean and variance."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Counts a value."""
        self.count += 1
        deviation = value - self.mean
        self.mean += deviation / self.count
        self.squares += deviation * (value - self.mean)

    @property
    def variance(self) -> float:
        """The sample variance, or 0 for fewer than two values."""
        return self.squares / (self.count - 1) if self.count > 1 else 0.0


@dataclass
class Arm:
    """The results of one side of an experiment."""

    requests: int = 0
    errors: int = 0
    timed: int = 0
    """Number of requests that a run of the model answered."""
    losses: Spread = field(default_factory=Spread)
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT), repr=False)
    """Latencies of the newest requests, in milliseconds."""

    def count_answer(self, milliseconds: float | None) -> None:
        """Counts an answered request. The latency is None where the answer was cached."""
        self.requests += 1
        if milliseconds is not None:
            self.timed += 1
            self.latencies.append(milliseconds)

    def count_failure(self) -> None:
        """Counts a failed request."""
        self.requests += 1
        self.errors += 1

    @property
    def latency_ms(self) -> float | None:
        """The median latency of the newest requests, in milliseconds."""
        return median(self.latencies) if self.latencies else None

    @property
    def error_rate(self) -> float:
        """The share of failed requests."""
        return self.errors / self.requests if self.requests else 0.0

    def summary(self) -> ArmSummary:
        """Returns the results for the report."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "latency_ms": self.latency_ms,
            "outcomes": self.losses.count,
            "loss": self.losses.mean if self.losses.count else None,
        }

    def state(self) -> dict[str, Any]:
        """Returns the state for JSON."""
        return asdict(self) | {"latencies": list(self.latencies)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Arm":
        """Makes an arm from the result of `state`."""
        latencies = deque(state["latencies"], maxlen=_RECENT)
        requests, errors = state["requests"], state["errors"]
        # Releases without `timed` did not count cached answers at all.
        return cls(requests, errors, state.get("timed", requests - errors), Spread(**state["losses"]), latencies)


class Trial:
    """Compares an experiment's version with one champion. When the champion is swapped, a new trial begins, because
    counts of another champion say nothing about the new one."""

    def __init__(self, experiment: Experiment, champion: int, bounded: bool) -> None:
        """`bounded` tells whether the model's losses have an upper bound."""
        self.experiment, self.champion_version = experiment, champion
        self.role = ROLES[experiment.kind]
        self.id = f"{experiment.kind}-{experiment.version}-{champion}-{experiment.since:.6f}"
        """Predictions are recorded with this id, so that their outcomes count for this trial only."""
        self.champion, self.other = Arm(), Arm()
        self.differences = Spread()
        """Differences of the losses of both versions on the same outcomes."""
        self.newest_outcome_at = time.time()
        """Time of the newest counted outcome, in seconds since the epoch. It begins with the trial's own begin, because
        no earlier outcome belongs to the trial."""
        self._loss = LossTest(bounded)
        self._over_limit, self._over_champion, self._slower = Bets(), Bets(), Bets()
        self._slow_ms: float | None = None

    def arm(self, role: str) -> Arm:
        """Returns the side that a role belongs to. The control belongs to the champion's side."""
        return self.other if role == self.role else self.champion

    def count_answer(self, role: Role, milliseconds: float | None) -> None:
        """Counts an answer and its latency. The latency is None where the answer was cached and no model was run."""
        if role == self.role:
            self._over_limit.observe(-self.experiment.limits.error_rate, self.experiment.limits.error_rate)
            if milliseconds is not None:
                self._bet_on_latency(milliseconds)
        self.arm(role).count_answer(milliseconds)

    def count_failure(self, role: Role) -> None:
        """Counts a request that the version of a role failed on."""
        self.arm(role).count_failure()
        if role == self.role:
            limit = self.experiment.limits.error_rate
            self._over_limit.observe(1 - limit, limit)

    def compare_failures(self, other_failed: bool, champion_failed: bool) -> None:
        """Compares both versions on one input, given which of them failed. An input that both fail on is not the other
        version's fault."""
        self._over_champion.observe(float(other_failed) - float(champion_failed), 1.0)

    def count_outcome(self, at: float, role: str, loss: float) -> None:
        """Counts the loss of one answer. `at` is the time of its outcome, in seconds since the epoch."""
        self.arm(role).losses.add(loss)
        self.newest_outcome_at = max(self.newest_outcome_at, at)

    def compare_losses(self, other_loss: float, champion_loss: float, most_gain: float) -> None:
        """Compares both versions' losses on one outcome. `most_gain` is the most by which the other version's loss
        could have been below the champion's, over all outcomes."""
        self.differences.add(other_loss - champion_loss)
        self._loss.observe(other_loss, champion_loss, most_gain)

    def reason_to_end(self) -> str | None:
        """Returns why a canary must end, or None while no test finds it worse."""
        other = self.other
        if min(self._over_limit.evidence, self._over_champion.evidence) >= WORSE_ERRORS:
            return f"{other.errors} of {other.requests} requests failed"
        if self._slower.evidence >= WORSE_LATENCY:
            return f"it takes {other.latency_ms:.1f} ms, the champion {self.champion.latency_ms:.1f} ms"
        if self._loss.evidence >= WORSE_LOSS:
            more, count = self.differences.mean, self.differences.count
            return f"its loss is {more:.4g} above the champion's, on {count:,} outcomes of both"
        return None

    def report(self) -> ExperimentReport:
        """Returns the experiment, the results of both sides and their comparison, for JSON."""
        return {
            **self.experiment.report(),
            "champion": self.champion_version,
            "arms": {"champion": self.champion.summary(), self.role: self.other.summary()},
            "comparison": self.comparison(),
        }

    def comparison(self) -> Comparison | None:
        """Returns the difference of the mean losses (the other version's minus the champion's), with a 95 % interval
        and a p-value that may be read at any time. Returns None while there are fewer than LEAST_OUTCOMES outcomes. A
        canary ends when `evidence` reaches `ends_at`."""
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
        comparison: Comparison = {
            "difference": difference,
            "low": low,
            "high": high,
            "p_value": float(p_value(difference, error, count)),
            "outcomes": count,
        }
        if paired:  # evidence does not end a shadow
            comparison["evidence"] = min(float(self._loss.evidence), _MOST)  # JSON has no infinity
            comparison["ends_at"] = WORSE_LOSS
        return comparison

    def state(self) -> dict[str, Any]:
        """Returns the state for JSON, from which `restore` continues."""
        return {
            "champion_version": self.champion_version,
            "champion": self.champion.state(),
            "other": self.other.state(),
            "differences": asdict(self.differences),
            "applied": self.newest_outcome_at,
            "tests": {name: test.state() for name, test in self._tests().items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from the result of `state`."""
        self.champion, self.other = Arm.from_state(state["champion"]), Arm.from_state(state["other"])
        self.differences = Spread(**state["differences"])
        self.newest_outcome_at = state["applied"]
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
        """Bets on whether more than half of the version's requests exceed the latency limit, once both versions have
        the least number of timed requests."""
        limits = self.experiment.limits
        if min(self.other.timed, self.champion.timed) < limits.least_requests:
            return
        if self._slow_ms is None or self.other.timed % _FRESH == 0:
            usual_ms = self.champion.latency_ms
            self._slow_ms = None if usual_ms is None else limits.latency_ratio * usual_ms + _SLACK_MS
        if self._slow_ms is not None:
            self._slower.observe(0.5 if milliseconds > self._slow_ms else -0.5, 0.5)
