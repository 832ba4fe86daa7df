"""Routes requests to versions: to the champion, or by an experiment. Ends an experiment whose version is worse.

- canary: another version gets a share of the requests. When a test finds that it fails more often, is slower or has the
  larger loss, the experiment ends and the champion answers all requests.
- ab: a stable hash of the request's key decides, so that a key always gets the same version.
- shadow: another version also runs on a share of the requests. Its answers are recorded and never returned.
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
from city.serving.responses import ArmSummary, ExperimentReport
from city.serving.roles import Role
from city.serving.trial import Experiment, Limits, Trial
from city.settings import Settings
from city.web.audit import Audit, AuditEntry, entry
from city.web.problems import Problem

log = logging.getLogger(__name__)

PLATFORM = "the platform itself"


class Routes:
    """The experiments of all models, at most one for each. Experiments and their counts are saved in
    <home>/serving/routes.json, so that a restart changes nothing. The caller saves changes every second, with
    `changed_snapshot` and `write`. All methods except `write` must run in the event loop's thread."""

    def __init__(
        self, config: Settings, audit: Audit, models: Mapping[str, Model], chance: random.Random | None = None
    ) -> None:
        self._path: Path = config.home / "serving" / "routes.json"
        self._audit, self._models, self._chance = audit, models, chance or random.Random()
        self._experiments: dict[str, Experiment] = {}
        self._trials: dict[str, Trial] = {}
        self.end_reasons: dict[str, str] = {}
        """For each model, why the platform ended its last experiment."""
        self._writing, self._snapshots, self._written = threading.Lock(), 0, 0
        self._changed = False
        self._unaudited: list[AuditEntry] = []
        """Entries about experiments that the platform ended while the audit log was not writable. They are written as
        soon as it is."""
        self._unknown: dict[str, Any] = {}
        """Experiments of models that this server does not serve, unchanged as they were read."""
        self._read()

    def experiments(self) -> dict[str, Experiment]:
        """Returns all experiments by model."""
        return dict(self._experiments)

    def experiment(self, model: str) -> Experiment | None:
        """Returns a model's experiment, or None."""
        return self._experiments.get(model)

    def trials(self) -> dict[str, Trial]:
        """Returns all trials by model."""
        return dict(self._trials)

    def trial(self, model: str, champion: int) -> Trial | None:
        """Returns the model's trial against the given champion, or None. An experiment whose version became the
        champion ends. If the champion changed, a new trial begins without counts."""
        experiment = self._experiments.get(model)
        if experiment is None:
            return None
        if experiment.version == champion:
            self.remove(model, PLATFORM, f"version {champion} is the champion now")
            return None
        trial = self._trials.get(model)
        if trial is None or trial.champion_version != champion:
            trial = self._trials[model] = Trial(experiment, champion, _has_bounded_loss(self._models[model]))
            self.write(self.snapshot())  # a restart searches the record for outcomes of this trial
        return trial

    def put(self, model: str, experiment: Experiment, champion: int, by: str) -> None:
        """Begins an experiment against the given champion. It replaces an earlier experiment of the model. Raises
        Problem where the audit log cannot be written; nothing has changed then."""
        replaced = [self._end_entry(model, by, "replaced")] if model in self._experiments else []
        self._write_audit([*replaced, entry(by, "experiment begun", model=model, experiment=asdict(experiment))])
        self._trials.pop(model, None)
        self._experiments[model] = experiment
        self.end_reasons.pop(model, None)
        self.trial(model, champion)

    def remove(self, model: str, by: str, reason: str) -> None:
        """Ends a model's experiment, so that the champion answers all requests. Raises Problem where the audit log
        cannot be written; nothing has changed then. If the platform ends an experiment, it does so for safety: the
        experiment ends in any case, and its entry is written as soon as the audit log is writable."""
        end_entry = self._end_entry(model, by, reason)
        if by == PLATFORM:
            self._unaudited.append(end_entry)
            self._settle_audit()
        else:
            self._write_audit([end_entry])
        experiment = self._experiments.pop(model)
        self._trials.pop(model, None)
        if by == PLATFORM:
            self.end_reasons[model] = f"version {experiment.version}: {reason}"
        self.write(self.snapshot())

    def choose_role(self, model: str, trial: Trial | None, key: str | None) -> Role:
        """Chooses the role that answers a request: `champion`, `canary` or `b`. The key decides in an A/B test, or
        chance for a request without a key."""
        if trial is None or trial.experiment.kind == "shadow":
            return "champion"
        experiment = trial.experiment
        if experiment.kind == "canary":
            return "canary" if self._chance.random() < experiment.share else "champion"
        if key:
            fraction = hash_to_fraction(f"{model}/{experiment.version}/{experiment.since}", key)
        else:
            fraction = self._chance.random()
        return "b" if fraction < experiment.share else "champion"

    def end_if_worse(self, model: str, trial: Trial) -> None:
        """Ends a canary that is worse than the champion. It must be called after each count of the trial. Does nothing
        for a trial that is over."""
        if self._trials.get(model) is not trial:
            return
        self._changed = True
        if trial.experiment.kind == "canary" and (reason := trial.reason_to_end()):
            log.warning("the canary %s version %d is ended: %s", model, trial.experiment.version, reason)
            self.remove(model, PLATFORM, reason)

    def report(self, model: str) -> ExperimentReport | None:
        """Returns the model's experiment with the results of both sides, for JSON, or None without an experiment."""
        experiment, trial = self._experiments.get(model), self._trials.get(model)
        if experiment is None:
            return None
        return trial.report() if trial else experiment.report()

    def changed_snapshot(self) -> tuple[int, str] | None:
        """Returns a snapshot for `write` if anything changed since the last one, otherwise None. Also writes pending
        entries of the audit log."""
        self._settle_audit()
        return self.snapshot() if self._changed else None

    def snapshot(self) -> tuple[int, str]:
        """Returns the experiments with their counts as JSON, with the snapshot's number."""
        self._changed = False
        self._snapshots += 1
        experiments = {
            name: {"experiment": asdict(experiment), "trial": trial.state() if trial else None}
            for name, experiment in self._experiments.items()
            for trial in [self._trials.get(name)]
        }
        content = {"experiments": self._unknown | experiments, "ended": self.end_reasons, "unaudited": self._unaudited}
        return self._snapshots, json.dumps(content)

    def write(self, snapshot: tuple[int, str]) -> None:
        """Writes a snapshot to the file. It can be called from any thread. An older snapshot never replaces a newer
        one. After a failed write, `changed_snapshot` returns a snapshot again."""
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

    def _end_entry(self, model: str, by: str, reason: str) -> AuditEntry:
        trial = self._trials.get(model)
        arms: dict[str, ArmSummary] = trial.report()["arms"] if trial else {}
        version = self._experiments[model].version
        return entry(by, "experiment ended", model=model, why=reason, version=version, arms=arms)

    def _write_audit(self, entries: Sequence[AuditEntry]) -> None:
        self._audit.append([*self._unaudited, *entries])
        self._unaudited = []

    def _settle_audit(self) -> None:
        if not self._unaudited:
            return
        try:
            self._write_audit([])
        except Problem:  # the audit has logged it; the request continues, and the write is retried every second
            return
        self._changed = True

    def _read(self) -> None:
        content: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}
        if "experiments" not in content:  # the format of releases without counts
            content = {"experiments": {name: {"experiment": e, "trial": None} for name, e in content.items()}}
        self.end_reasons, self._unaudited = content.get("ended", {}), content.get("unaudited", [])
        for name, saved in content["experiments"].items():
            if name not in self._models:
                log.warning("the experiment of %s waits: no such model is declared", name)
                self._unknown[name] = saved
                continue
            state = saved["experiment"]
            experiment = self._experiments[name] = Experiment(**{**state, "limits": Limits(**state["limits"])})
            if state := saved["trial"]:
                trial = Trial(experiment, state["champion_version"], _has_bounded_loss(self._models[name]))
                trial.restore(state)
                self._trials[name] = trial


def _has_bounded_loss(model: Model) -> bool:
    """Tells whether the model's loss has an upper bound. The loss of a probability has one, because probabilities are
    cut before their logarithm is taken. The error of a predicted number has none."""
    return model.kind != "regression"


def hash_to_fraction(salt: str, key: str) -> float:
    """Hashes a key to a number from 0 to 1. The numbers are evenly distributed and the same in every process. `salt`
    makes the numbers of different experiments independent."""
    digest = hashlib.blake2b(f"{salt}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
