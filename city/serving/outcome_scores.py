"""How good each version that serves is, from the outcomes of its predictions as `/feedback` takes them."""

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
"""With fewer outcomes rules get no figures."""
_MINUTES = 60
_VERSIONS = 4
"""Versions of a model that are followed: the champion, another one beside it, and those before them."""
_OUTCOMES = "outcomes"


class _Judged(NamedTuple):
    """What is kept of one outcome; the classes are None where a number is predicted."""

    prediction: str | None
    outcome: str | None
    loss: float


@dataclass
class _Tally:
    """Outcomes that are counted together. Bounded by the classes of a model."""

    count: int = 0
    loss: float = 0.0
    classes: dict[tuple[str, str], int] = field(default_factory=dict)
    """How often each (prediction, outcome) came."""

    def add(self, judged: _Judged) -> None:
        self.count += 1
        self.loss += judged.loss
        if judged.prediction is not None and judged.outcome is not None:
            pair = (judged.prediction, judged.outcome)
            self.classes[pair] = self.classes.get(pair, 0) + 1

    def merge(self, other: "_Tally") -> None:
        self.count += other.count
        self.loss += other.loss
        for pair, count in other.classes.items():
            self.classes[pair] = self.classes.get(pair, 0) + count

    def scores(self) -> dict[str, float]:
        if not self.count:
            return {}
        found = classification_scores(self.classes) if self.classes else {"mae": self.loss / self.count}
        return {_OUTCOMES: float(self.count), **found}


@dataclass
class _Version:
    """What is kept of a version: its newest outcomes, and those of each minute of the last hour."""

    newest: deque[_Judged] = field(default_factory=lambda: deque(maxlen=RECENT_OUTCOMES))
    minutes: dict[int, _Tally] = field(default_factory=dict)

    def add(self, at: float, judged: _Judged) -> None:
        self.newest.append(judged)
        minute = int(at // 60)
        self.minutes.setdefault(minute, _Tally()).add(judged)
        # Minutes after this one are of a clock that was ahead: they would push out each minute that is now.
        for outside in [other for other in self.minutes if not minute - _MINUTES < other <= minute]:
            del self.minutes[outside]

    def scores(self, now: float) -> dict[str, dict[str, float]]:
        recent, hour = _Tally(), _Tally()
        for judged in self.newest:
            recent.add(judged)
        this = int(now // 60)
        for minute, tally in self.minutes.items():
            if this - _MINUTES < minute <= this:
                hour.merge(tally)
        return {RECENT: recent.scores(), HOUR: hour.scores()}

    def state(self) -> dict[str, Any]:
        minutes = {
            str(minute): [tally.count, tally.loss, [[*pair, count] for pair, count in tally.classes.items()]]
            for minute, tally in self.minutes.items()
        }
        return {"newest": [list(judged) for judged in self.newest], "minutes": minutes}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "_Version":
        made = cls()
        made.newest.extend(_Judged(*judged) for judged in state["newest"])
        for minute, (count, loss, classes) in state["minutes"].items():
            made.minutes[int(minute)] = _Tally(count, loss, {(said, came): n for said, came, n in classes})
        return made


class OutcomeScores:
    """Scores of versions, over their newest thousand outcomes and over the last hour. Safe to call from any thread.

    Memory is bounded: of each model the four versions that were last heard of, of each a thousand outcomes and sixty
    minutes of counts. They are in `serving/scores.json`, from which a server goes on.
    """

    def __init__(self, config: Settings, models: Mapping[str, Model]) -> None:
        self._models = models
        self._path = config.home / "serving" / "scores.json"
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._changed = False
        self._versions: dict[str, dict[int, _Version]] = {name: {} for name in models}
        """Of each model, the version that was last heard of last."""
        self._read()

    def add(self, model: str, version: int, at: float, prediction: float | str, outcome: str, loss: float) -> None:
        """Counts one outcome. `at` is now, in seconds since the epoch: what was counted in minutes after it, by a clock
        that was ahead, is dropped from the hour."""
        is_class = self._models[model].kind == "classification"
        judged = _Judged(str(prediction), outcome, loss) if is_class else _Judged(None, None, loss)
        with self._lock:
            known = self._versions[model]
            followed = known.pop(version) if version in known else _Version()
            known[version] = followed
            if len(known) > _VERSIONS:
                del known[next(iter(known))]
            followed.add(at, judged)
            self._changed = True

    def scores(self, model: str, version: int, now: float | None = None) -> dict[str, dict[str, float]]:
        """`outcomes` and `mae`, or `accuracy`, `precision`, `recall` and `f1`, of the newest outcomes (`recent`) and of
        those of the last hour (`hour`); nothing of a version without any."""
        with self._lock:
            found = self._versions.get(model, {}).get(version)
            return found.scores(time.time() if now is None else now) if found else {}

    def metrics(self, champions: Mapping[str, int], now: float | None = None) -> dict[str, float | None]:
        """The scores of champions as rules have them: `model.recent_<score>.<model>` and `model.hour_<score>.<model>`.
        None of too few outcomes."""
        return {
            f"model.{span}_{name}.{model}": value if name == _OUTCOMES or of[_OUTCOMES] >= LEAST_OUTCOMES else None
            for model, version in champions.items()
            for span, of in self.scores(model, version, now).items()
            for name, value in of.items()
        }

    def save(self) -> None:
        """Writes what was counted since the last time, if anything was. What cannot be written is written with what
        comes later."""
        with self._writing:
            with self._lock:
                if not self._changed:
                    return
                self._changed = False
                states = {
                    name: {str(number): version.state() for number, version in of.items()}
                    for name, of in self._versions.items()
                    if of
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
                    self._versions[name] = {int(number): _Version.of(state) for number, state in versions.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("%s cannot be read, so scores of outcomes begin anew: %r", self._path, error)
