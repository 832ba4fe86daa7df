"""Scores of the versions that serve, computed from the outcomes of their predictions. `/feedback` receives the
outcomes."""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from city.models.model import Model
from city.models.performance import classification_scores
from city.settings import Settings

log = logging.getLogger(__name__)

RECENT, HOUR = "recent", "hour"
RECENT_OUTCOMES = 1_000
LEAST_OUTCOMES = 30
"""With fewer outcomes rules get no scores."""
_MINUTES = 60
_VERSIONS = 4
"""Number of versions of a model that are followed: the champion, another version beside it, and their predecessors."""
_OUTCOMES = "outcomes"


class _ScoredOutcome(NamedTuple):
    """One prediction with its outcome and loss. `prediction` and `outcome` are None where the model predicts a
    number."""

    prediction: str | None
    outcome: str | None
    loss: float


@dataclass
class _Tally:
    """Counts outcomes. Its size is bounded by the number of the model's classes."""

    count: int = 0
    loss: float = 0.0
    classes: dict[tuple[str, str], int] = field(default_factory=dict)
    """Number of outcomes of each pair (prediction, outcome)."""

    def add(self, scored: _ScoredOutcome) -> None:
        self.count += 1
        self.loss += scored.loss
        if scored.prediction is not None and scored.outcome is not None:
            pair = (scored.prediction, scored.outcome)
            self.classes[pair] = self.classes.get(pair, 0) + 1

    def merge(self, other: "_Tally") -> None:
        self.count += other.count
        self.loss += other.loss
        for pair, count in other.classes.items():
            self.classes[pair] = self.classes.get(pair, 0) + count

    def scores(self) -> dict[str, float]:
        if not self.count:
            return {}
        scores = classification_scores(self.classes) if self.classes else {"mae": self.loss / self.count}
        return {_OUTCOMES: float(self.count), **scores}


@dataclass
class _VersionOutcomes:
    """Outcomes of one version: the newest ones, and the counts of each minute of the last hour."""

    newest: deque[_ScoredOutcome] = field(default_factory=lambda: deque(maxlen=RECENT_OUTCOMES))
    minutes: dict[int, _Tally] = field(default_factory=dict)

    def add(self, at: float, scored: _ScoredOutcome) -> None:
        self.newest.append(scored)
        minute = int(at // 60)
        self.minutes.setdefault(minute, _Tally()).add(scored)
        # Later minutes come from a clock that was ahead. They are dropped, or they would displace the current minutes.
        for outside in [other for other in self.minutes if not minute - _MINUTES < other <= minute]:
            del self.minutes[outside]

    def scores(self, now: float) -> dict[str, dict[str, float]]:
        recent, hour = _Tally(), _Tally()
        for scored in self.newest:
            recent.add(scored)
        this_minute = int(now // 60)
        for minute, tally in self.minutes.items():
            if this_minute - _MINUTES < minute <= this_minute:
                hour.merge(tally)
        return {RECENT: recent.scores(), HOUR: hour.scores()}

    def state(self) -> dict[str, Any]:
        minutes = {
            str(minute): [tally.count, tally.loss, [[*pair, count] for pair, count in tally.classes.items()]]
            for minute, tally in self.minutes.items()
        }
        return {"newest": [list(scored) for scored in self.newest], "minutes": minutes}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "_VersionOutcomes":
        version = cls()
        version.newest.extend(_ScoredOutcome(*scored) for scored in state["newest"])
        for minute, (count, loss, classes) in state["minutes"].items():
            version.minutes[int(minute)] = _Tally(
                count, loss, {(prediction, outcome): n for prediction, outcome, n in classes}
            )
        return version


class OutcomeScores:
    """Scores of versions over their newest thousand outcomes and over the last hour. It is safe to call from any
    thread.

    Memory is bounded: each model keeps the four versions with the latest outcomes, and each version a thousand outcomes
    and sixty minutes of counts. `serving/scores.json` has a copy, with which a restarted server continues.
    """

    def __init__(self, config: Settings, models: Mapping[str, Model]) -> None:
        self._models = models
        self._path = config.home / "serving" / "scores.json"
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._changed = False
        self._versions: dict[str, dict[int, _VersionOutcomes]] = {name: {} for name in models}
        """The versions of each model, ordered by their latest outcome; the newest is last."""
        self._read()

    def add(self, model: str, version: int, at: float, prediction: float | str, outcome: str, loss: float) -> None:
        """Counts one outcome. `at` is the current time, in seconds since the epoch. Counts of later minutes, from a
        clock that was ahead, are dropped from the hour."""
        is_class = self._models[model].kind == "classification"
        scored = _ScoredOutcome(str(prediction), outcome, loss) if is_class else _ScoredOutcome(None, None, loss)
        with self._lock:
            versions = self._versions[model]
            followed = versions.pop(version) if version in versions else _VersionOutcomes()
            versions[version] = followed
            if len(versions) > _VERSIONS:
                del versions[next(iter(versions))]
            followed.add(at, scored)
            self._changed = True

    def scores(self, model: str, version: int, now: float | None = None) -> dict[str, dict[str, float]]:
        """Returns the scores of a version over its newest outcomes (`recent`) and over those of the last hour (`hour`).
        The scores are `outcomes` (their number) and `mae`, or `accuracy`, `precision`, `recall` and `f1`. The result is
        empty for a version without outcomes. `now` is in seconds since the epoch."""
        with self._lock:
            followed = self._versions.get(model, {}).get(version)
            return followed.scores(time.time() if now is None else now) if followed else {}

    def metrics(self, champions: Mapping[str, int], now: float | None = None) -> dict[str, float | None]:
        """Returns the scores of champions as metrics of rules: `model.recent_<score>.<model>` and
        `model.hour_<score>.<model>`. A score of fewer than LEAST_OUTCOMES outcomes is None. `champions` are the version
        numbers by model; `now` is in seconds since the epoch."""
        return {
            f"model.{span}_{name}.{model}": value if name == _OUTCOMES or scores[_OUTCOMES] >= LEAST_OUTCOMES else None
            for model, version in champions.items()
            for span, scores in self.scores(model, version, now).items()
            for name, value in scores.items()
        }

    def save(self) -> None:
        """Writes the counts to `serving/scores.json` if they changed since the last call. After a failed write, the
        next call writes them again."""
        with self._writing:
            with self._lock:
                if not self._changed:
                    return
                self._changed = False
                states = {
                    name: {str(number): version.state() for number, version in versions.items()}
                    for name, versions in self._versions.items()
                    if versions
                }
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                fresh = self._path.with_suffix(".new")
                fresh.write_bytes(orjson.dumps(states))
                fresh.replace(self._path)
            except OSError as error:
                log.error("the scores of versions cannot be written: %s", error)
                self._changed = True

    def _read(self) -> None:
        try:
            states = orjson.loads(self._path.read_bytes()) if self._path.exists() else {}
            for name, versions in states.items():
                if name in self._versions:
                    self._versions[name] = {
                        int(number): _VersionOutcomes.from_state(state) for number, state in versions.items()
                    }
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("cannot read %s, so scores of outcomes start again: %r", self._path, error)
