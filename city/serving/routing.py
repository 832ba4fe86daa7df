"""Which version answers: the champion, or what an experiment says; and when an experiment ends by itself.

- canary: a share of the requests goes to another version; it ends, and the champion answers all, as soon as the other
  one fails more often, is slower, or is surely worse.
- ab: requests are told apart by a stable hash of their key, so that a key always gets the same version.
- shadow: another version is asked too; its answers are recorded and never returned.
"""

import hashlib
import json
import logging
import math
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from city.serving.audit import Audit
from city.settings import Settings
from city.welch import Sample, welch

log = logging.getLogger(__name__)

Kind = Literal["canary", "ab", "shadow"]
Role = Literal["champion", "canary", "b", "shadow"]
_SURE = 0.01
_LEAST_OUTCOMES = 30
_RECENT = 500
_SLACK_MS = 2.0
"""Of latencies: less than this is no difference worth ending a canary for."""


@dataclass(frozen=True)
class Limits:
    """What a canary may do before it is ended."""

    error_rate: float = 0.02
    latency_ratio: float = 2.0
    least_requests: int = 50


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
class Arm:
    """How one side of an experiment does."""

    requests: int = 0
    errors: int = 0
    outcomes: int = 0
    loss_mean: float = 0.0
    _loss_squares: float = 0.0
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT), repr=False)

    def answered(self, milliseconds: float) -> None:
        self.requests += 1
        self._latencies.append(milliseconds)

    def failed(self) -> None:
        self.requests += 1
        self.errors += 1

    def judged(self, loss: float) -> None:
        """Welford's running mean and variance."""
        self.outcomes += 1
        apart = loss - self.loss_mean
        self.loss_mean += apart / self.outcomes
        self._loss_squares += apart * (loss - self.loss_mean)

    @property
    def latency_ms(self) -> float | None:
        return median(self._latencies) if self._latencies else None

    @property
    def loss_std(self) -> float:
        return math.sqrt(self._loss_squares / (self.outcomes - 1)) if self.outcomes > 1 else 0.0

    @property
    def error_rate(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    def summary(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "errors": self.errors,
            "latency_ms": self.latency_ms,
            "outcomes": self.outcomes,
            "loss": self.loss_mean if self.outcomes else None,
        }


class Routes:
    """Every model's experiment, of which it has one at most. Kept in <home>/serving/routes.json, so that a restart
    changes nothing; used from the event loop's thread only."""

    def __init__(self, config: Settings, audit: Audit, chance: random.Random | None = None) -> None:
        self._path: Path = config.home / "serving" / "routes.json"
        self._audit, self._chance = audit, chance or random.Random()
        self._experiments: dict[str, Experiment] = {}
        self._arms: dict[str, dict[Role, Arm]] = {}
        self.ended: dict[str, str] = {}
        """Why a model's last experiment was ended by itself."""
        for name, found in self._read().items():
            self._begin(name, Experiment(**{**found, "limits": Limits(**found["limits"])}))

    def all(self) -> dict[str, Experiment]:
        return dict(self._experiments)

    def of(self, model: str) -> Experiment | None:
        return self._experiments.get(model)

    def put(self, model: str, experiment: Experiment, by: str) -> None:
        """Begins an experiment, in place of the one there was."""
        self._begin(model, experiment)
        self.ended.pop(model, None)
        self._write()
        self._audit.write(by, "experiment begun", model=model, experiment=asdict(experiment))

    def remove(self, model: str, by: str, why: str) -> None:
        """The champion answers all again."""
        experiment, arms = self._experiments.pop(model), self._arms.pop(model)
        self._write()
        said = {role: arm.summary() for role, arm in arms.items()}
        self._audit.write(by, "experiment ended", model=model, why=why, version=experiment.version, arms=said)

    def choose(self, model: str, key: str | None) -> Role:
        """Who is to answer: `champion`, `canary` or `b`."""
        experiment = self._experiments.get(model)
        if experiment is None or experiment.kind == "shadow":
            return "champion"
        if experiment.kind == "canary":
            return "canary" if self._chance.random() < experiment.share else "champion"
        place = place_of(f"{model}/{experiment.version}/{experiment.since}", key) if key else self._chance.random()
        return "b" if place < experiment.share else "champion"

    def answered(self, model: str, role: Role, milliseconds: float) -> None:
        arms = self._arms.get(model)
        if arms is not None:
            arms[role].answered(milliseconds)
            self._look(model)

    def failed(self, model: str, role: Role) -> None:
        arms = self._arms.get(model)
        if arms is not None:
            arms[role].failed()
            self._look(model)

    def judged(self, model: str, role: Role, loss: float) -> None:
        """What came of a prediction is known."""
        arms = self._arms.get(model)
        if arms is not None and role in arms:
            arms[role].judged(loss)
            self._look(model)

    def report(self, model: str) -> dict[str, Any] | None:
        """How the two sides compare; None where there is no experiment."""
        experiment = self._experiments.get(model)
        if experiment is None:
            return None
        arms = self._arms[model]
        champion, other = arms["champion"], arms[other_role(experiment)]
        return {
            **asdict(experiment),
            "arms": {role: arm.summary() for role, arm in arms.items()},
            "comparison": compared(champion, other),
        }

    def _begin(self, model: str, experiment: Experiment) -> None:
        self._experiments[model] = experiment
        self._arms[model] = {"champion": Arm(), other_role(experiment): Arm()}

    def _look(self, model: str) -> None:
        """Ends a canary that does worse."""
        experiment = self._experiments[model]
        if experiment.kind != "canary":
            return
        champion, canary = self._arms[model]["champion"], self._arms[model]["canary"]
        why = worse(experiment.limits, champion, canary)
        if why:
            log.warning("the canary %s version %d is ended: %s", model, experiment.version, why)
            self.ended[model] = f"version {experiment.version}: {why}"
            self.remove(model, "the platform itself", why)

    def _read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}
        return found

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({name: asdict(e) for name, e in self._experiments.items()}, indent=1))
        fresh.replace(self._path)


def other_role(experiment: Experiment) -> Role:
    roles: Mapping[Kind, Role] = {"canary": "canary", "ab": "b", "shadow": "shadow"}
    return roles[experiment.kind]


def place_of(salt: str, key: str) -> float:
    """Where a key stands between 0 and 1: evenly, and the same in every process."""
    digest = hashlib.blake2b(f"{salt}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def worse(limits: Limits, champion: Arm, canary: Arm) -> str | None:
    """Why a canary is to be ended, or None. Errors count from a fifth of the requests that it must have had: who
    fails at once is not asked fifty times."""
    allowed = max(limits.error_rate, champion.error_rate)
    if canary.errors > 1 and canary.requests * 5 >= limits.least_requests and canary.error_rate > allowed:
        return f"{canary.errors} of {canary.requests} requests failed"
    # The median is asked for now and then only: it sorts.
    if canary.requests >= limits.least_requests and canary.requests % 10 == 0:
        theirs, ours = canary.latency_ms, champion.latency_ms
        if theirs is not None and ours is not None and theirs > limits.latency_ratio * ours + _SLACK_MS:
            return f"it takes {theirs:.1f} ms, the champion {ours:.1f} ms"
    if min(canary.outcomes, champion.outcomes) >= _LEAST_OUTCOMES and canary.loss_mean > champion.loss_mean:
        found = compared(champion, canary)
        if found is not None and found["p_value"] < _SURE:
            return f"its loss is {canary.loss_mean:.4g}, the champion's {champion.loss_mean:.4g}"
    return None


def compared(champion: Arm, other: Arm) -> dict[str, float] | None:
    """The difference of their mean losses (the other's less the champion's), its 95 % interval and p-value, by Welch's
    t-test; None while too few outcomes are known."""
    if min(champion.outcomes, other.outcomes) < _LEAST_OUTCOMES:
        return None
    found = welch(*(Sample(arm.loss_mean, arm.loss_std, arm.outcomes) for arm in (other, champion)))
    low, high = found.interval(0.95)
    return {"difference": found.difference, "low": low, "high": high, "p_value": found.different}
