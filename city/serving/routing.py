"""Which version answers: the champion, or what an experiment says; and when an experiment ends by itself.

- canary: a share of the requests goes to another version; it ends, and the champion answers all, as soon as the other
  one surely fails more often, is slower, or has the larger loss.
- ab: requests are told apart by a stable hash of their key, so that a key always gets the same version.
- shadow: another version is asked too; its answers are recorded and never returned.
"""

import hashlib
import json
import logging
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from city.models.model import Model
from city.serving.trial import Experiment, Limits, Role, Trial
from city.settings import Settings
from city.web.audit import Audit, Entry, entry
from city.web.problems import Problem

log = logging.getLogger(__name__)

PLATFORM = "the platform itself"


class Routes:
    """Every model's experiment, of which it has one at most. Kept with its counts in <home>/serving/routes.json, so
    that a restart changes nothing: `save` writes what has changed since, and is called every second. Used from the
    event loop's thread only, but for `write`."""

    def __init__(
        self, config: Settings, audit: Audit, models: Mapping[str, Model], chance: random.Random | None = None
    ) -> None:
        self._path: Path = config.home / "serving" / "routes.json"
        self._audit, self._models, self._chance = audit, models, chance or random.Random()
        self._experiments: dict[str, Experiment] = {}
        self._trials: dict[str, Trial] = {}
        self.ended: dict[str, str] = {}
        """Why a model's last experiment was ended by itself."""
        self._writing, self._snapshots, self._written = threading.Lock(), 0, 0
        self._changed = False
        self._unaudited: list[Entry] = []
        """What the platform has ended while the audit could not be written: written to it as soon as it can be."""
        self._unknown: dict[str, Any] = {}
        """As they were read: of models that this server does not serve."""
        self._read()

    def all(self) -> dict[str, Experiment]:
        return dict(self._experiments)

    def of(self, model: str) -> Experiment | None:
        return self._experiments.get(model)

    def trials(self) -> dict[str, Trial]:
        return dict(self._trials)

    def trial(self, model: str, champion: int) -> Trial | None:
        """The experiment under way against this champion; None where there is none. One whose version became the
        champion is over, and one against another champion is counted anew."""
        experiment = self._experiments.get(model)
        if experiment is None:
            return None
        if experiment.version == champion:
            self.remove(model, PLATFORM, f"version {champion} is the champion now")
            return None
        trial = self._trials.get(model)
        if trial is None or trial.champion_version != champion:
            trial = self._trials[model] = Trial(experiment, champion, _bounded(self._models[model]))
            self.write(self.snapshot())  # a restart looks for what was recorded of it
        return trial

    def put(self, model: str, experiment: Experiment, champion: int, by: str) -> None:
        """Begins an experiment against this champion, in place of the one there was. Raises Problem where the audit
        cannot be written; nothing has changed then."""
        replaced = [self._ending(model, by, "replaced")] if model in self._experiments else []
        self._write_audit([*replaced, entry(by, "experiment begun", model=model, experiment=asdict(experiment))])
        self._trials.pop(model, None)
        self._experiments[model] = experiment
        self.ended.pop(model, None)
        self.trial(model, champion)

    def remove(self, model: str, by: str, why: str) -> None:
        """The champion answers all again. Raises Problem where the audit cannot be written; nothing has changed then.
        But what the platform itself ends is ended for safety, and is in the audit as soon as that can be written."""
        ending = self._ending(model, by, why)
        if by == PLATFORM:
            self._unaudited.append(ending)
            self._settle_audit()
        else:
            self._write_audit([ending])
        experiment = self._experiments.pop(model)
        self._trials.pop(model, None)
        if by == PLATFORM:
            self.ended[model] = f"version {experiment.version}: {why}"
        self.write(self.snapshot())

    def choose(self, model: str, trial: Trial | None, key: str | None) -> Role:
        """Who is to answer: `champion`, `canary` or `b`."""
        if trial is None or trial.experiment.kind == "shadow":
            return "champion"
        experiment = trial.experiment
        if experiment.kind == "canary":
            return "canary" if self._chance.random() < experiment.share else "champion"
        place = place_of(f"{model}/{experiment.version}/{experiment.since}", key) if key else self._chance.random()
        return "b" if place < experiment.share else "champion"

    def look(self, model: str, trial: Trial) -> None:
        """Ends a canary that does worse. To be called when anything was counted; of a trial that is over it is
        nothing."""
        if self._trials.get(model) is not trial:
            return
        self._changed = True
        if trial.experiment.kind == "canary" and (why := trial.worse()):
            log.warning("the canary %s version %d is ended: %s", model, trial.experiment.version, why)
            self.remove(model, PLATFORM, why)

    def report(self, model: str) -> dict[str, Any] | None:
        """How the two sides compare; None where there is no experiment."""
        experiment, trial = self._experiments.get(model), self._trials.get(model)
        if experiment is None:
            return None
        return trial.report() if trial else asdict(experiment) | {"arms": {}, "comparison": None}

    def save(self) -> tuple[int, str] | None:
        """What `write` is to write, where anything was counted since the last time."""
        self._settle_audit()
        return self.snapshot() if self._changed else None

    def snapshot(self) -> tuple[int, str]:
        self._changed = False
        self._snapshots += 1
        known = {
            name: {"experiment": asdict(experiment), "trial": trial.state() if trial else None}
            for name, experiment in self._experiments.items()
            for trial in [self._trials.get(name)]
        }
        content = {"experiments": self._unknown | known, "ended": self.ended, "unaudited": self._unaudited}
        return self._snapshots, json.dumps(content)

    def write(self, snapshot: tuple[int, str]) -> None:
        """Callable from any thread: an older snapshot never replaces a newer one. What cannot be written is written
        with the next one, for which `save` asks again."""
        number, content = snapshot
        with self._writing:
            if number < self._written:
                return
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                fresh = self._path.with_suffix(".new")
                fresh.write_text(content)
                fresh.replace(self._path)
                self._written = number
            except OSError as error:
                log.error("experiments and their counts cannot be written: %s", error)
                self._changed = True

    def _ending(self, model: str, by: str, why: str) -> Entry:
        trial = self._trials.get(model)
        arms = trial.report()["arms"] if trial else {}
        version = self._experiments[model].version
        return entry(by, "experiment ended", model=model, why=why, version=version, arms=arms)

    def _write_audit(self, entries: Sequence[Entry]) -> None:
        self._audit.append([*self._unaudited, *entries])
        self._unaudited = []

    def _settle_audit(self) -> None:
        if not self._unaudited:
            return
        try:
            self._write_audit([])
        except Problem:  # said in the log; a request goes on, and it is tried again every second
            return
        self._changed = True

    def _read(self) -> None:
        known: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}
        if "experiments" not in known:  # as it was written before counts were kept
            known = {"experiments": {name: {"experiment": found, "trial": None} for name, found in known.items()}}
        self.ended, self._unaudited = known.get("ended", {}), known.get("unaudited", [])
        for name, found in known["experiments"].items():
            if name not in self._models:
                log.warning("the experiment of %s waits: no such model is declared", name)
                self._unknown[name] = found
                continue
            state = found["experiment"]
            experiment = self._experiments[name] = Experiment(**{**state, "limits": Limits(**state["limits"])})
            if state := found["trial"]:
                trial = Trial(experiment, state["champion_version"], _bounded(self._models[name]))
                trial.restore(state)
                self._trials[name] = trial


def _bounded(model: Model) -> bool:
    """Probabilities are cut before their logarithm is taken; a number can be wrong by anything."""
    return model.kind != "regression"


def place_of(salt: str, key: str) -> float:
    """Where a key stands between 0 and 1: evenly, and the same in every process."""
    digest = hashlib.blake2b(f"{salt}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
