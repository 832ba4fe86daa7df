"""What came of predictions: taken once for each, whenever it comes, and counted for the versions that predicted."""

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from deltalake.exceptions import DeltaError
from polars.exceptions import PolarsError

from city.models.examples import labels
from city.models.judge import losses
from city.models.labels import LABEL
from city.models.model import Model
from city.serving.outcome_scores import OutcomeScores
from city.serving.record import Full, PredictionStore
from city.serving.recorded import Outcome, Prediction, day_of, trial_outcomes
from city.serving.remembered import Remembered
from city.serving.routing import Routes
from city.serving.trial import BESIDE, ROLES, Trial
from city.settings import Settings
from city.web.problems import Problem

log = logging.getLogger(__name__)

AWAY = (OSError, PolarsError, DeltaError)
"""What reading a lake raises that is away."""
_TICK = 1e-5
"""Outcomes are at least so many seconds apart, so that a time says which were counted: more than a table rounds by."""
_RETRY = {"retry-after": "2"}


class Judgement(NamedTuple):
    """What is kept of a prediction that was judged."""

    model: str
    version: int
    outcome: str
    loss: float


_Kept = tuple[str, int, str, float]
"""A judgement as a plain tuple."""


class Feedback:
    """Used from the event loop; what reads the lake runs in a thread."""

    def __init__(
        self,
        config: Settings,
        models: Mapping[str, Model],
        store: PredictionStore,
        routes: Routes,
        scores: OutcomeScores,
    ) -> None:
        self._lake, self._models, self._store, self._routes = config.lake, models, store, routes
        self._scores = scores
        self._judged = Remembered[_Kept]()
        self._newest = 0.0
        self._recovered = False

    async def take(self, number: str, outcome: float | str, caller: str) -> dict[str, Any]:
        """Judges a prediction. The same outcome again changes nothing and is answered alike. Raises Problem for an
        unknown prediction, an outcome that its model cannot have, and another outcome than the one that was taken."""
        if not self._recovered:
            raise Problem(503, "what was told before the restart is being read: tell it again", headers=_RETRY)
        known, predictions = self._known(number), self._store.recent(number)
        if known is None and not predictions:
            predictions, known = await self._find(number)
            known = self._known(number) or known  # somebody else may have told it meanwhile
        if known is not None:
            return self._repeated(number, known, outcome)
        answered = predictions[0]
        model = self._models[answered.model]
        text = _text_of(model, outcome)
        at = self._newest = max(time.time(), self._newest + _TICK)
        outcomes = [self._outcome(model, number, at, p, caller, text, answered) for p in predictions]
        self._keep(outcomes)
        self._score(predictions, outcomes)
        loss = outcomes[0].loss
        self._remember(number, Judgement(answered.model, answered.version, text, loss))
        self._count(answered.model, outcomes)
        return {"id": number, "model": answered.model, "version": answered.version, "loss": loss, "repeated": False}

    def judge_late(self, number: str, caller: str) -> None:
        """A version that was asked beside another one has answered; the outcome may have come sooner."""
        known = self._known(number)
        predictions = self._store.recent(number)
        if known is None or len(predictions) < 2:
            return
        model = self._models[known.model]
        at = self._newest = max(time.time(), self._newest + _TICK)
        outcomes = [self._outcome(model, number, at, p, caller, known.outcome, predictions[0]) for p in predictions]
        self._keep(outcomes[1:])
        self._score(predictions[1:], outcomes[1:])
        self._count(known.model, outcomes[1:], known.loss)

    async def recover(self) -> None:
        """Takes up what a process before was told: what it had not written, and what its trials had not counted.
        Raises what a lake that is away raises (`AWAY`)."""
        trials = self._routes.trials()

        def read() -> tuple[list[Outcome], dict[str, list[Outcome]]]:
            journaled = self._store.recover()
            return journaled, {name: trial_outcomes(self._lake, name, t.id, t.applied) for name, t in trials.items()}

        journaled, recorded = await asyncio.to_thread(read)
        for outcome in journaled:
            if outcome.role not in BESIDE and outcome.model in self._models:
                self._remember(outcome.id, Judgement(outcome.model, outcome.version, outcome.outcome, outcome.loss))
        for model, trial in trials.items():
            known = [outcome for outcome in (*recorded[model], *journaled) if outcome.experiment == trial.id]
            replay(trial, list({(outcome.id, outcome.version): outcome for outcome in known}.values()))
            self._newest = max(self._newest, trial.applied)
            self._routes.look(model, trial)
        self._recovered = True

    async def _find(self, number: str) -> tuple[list[Prediction], Judgement | None]:
        """Raises Problem."""
        if day_of(number) is None:
            raise Problem(
                404,
                f"no prediction {number[:64]!r}: give the `id` of an answer of /predict",
                [("id", "is none of ours")],
            )
        try:
            predictions, outcomes = await asyncio.to_thread(self._store.find, number)
        except AWAY as error:
            log.warning("feedback to %s cannot be taken: %s", number, error)
            raise Problem(503, "the record of predictions cannot be read now: tell it again", headers=_RETRY) from None
        if not predictions:
            if self._store.error:
                raise Problem(503, "the record of predictions is away now: tell it again", headers=_RETRY)
            raise Problem(404, f"no prediction {number[:64]!r} was recorded, or its day is not in the lake any more")
        judged = [o for o in outcomes if o.role not in BESIDE]
        if not judged:
            return predictions, None
        first = judged[0]
        return predictions, Judgement(first.model, first.version, first.outcome, first.loss)

    def _repeated(self, number: str, known: Judgement, outcome: float | str) -> dict[str, Any]:
        text = _text_of(self._models[known.model], outcome)
        if text != known.outcome:
            detail = f"prediction {number} was judged by the outcome {known.outcome} already; {text[:40]} is not taken"
            raise Problem(409, detail, [("outcome", f"is {known.outcome} already")])
        return {"id": number, "model": known.model, "version": known.version, "loss": known.loss, "repeated": True}

    def _outcome(
        self, model: Model, number: str, at: float, of: Prediction, caller: str, text: str, answered: Prediction
    ) -> Outcome:
        gain = None
        if of.role in BESIDE:
            other, champion = (of, answered) if of.role == ROLES["shadow"] else (answered, of)
            gain = most_gain(model, other.output, champion.output)
        loss = loss_of(model, of.output, text)
        return Outcome(number, at, model.name, of.version, of.role, caller, text, loss, of.experiment, gain)

    def _keep(self, outcomes: Sequence[Outcome]) -> None:
        try:
            self._store.judged(outcomes)
        except Full as error:
            raise Problem(503, str(error), headers=_RETRY) from None
        except OSError as error:
            log.error("feedback cannot be kept: %s", error)
            raise Problem(503, "the outcome cannot be kept now: tell it again", headers=_RETRY) from None

    def _score(self, predictions: Sequence[Prediction], outcomes: Sequence[Outcome]) -> None:
        now = time.time()  # not the outcomes' `at`, which never goes back where the clock does
        for prediction, came in zip(predictions, outcomes, strict=True):
            self._scores.add(came.model, came.version, now, prediction.prediction, came.outcome, came.loss)

    def _known(self, number: str) -> Judgement | None:
        kept = self._judged.get(number)
        return Judgement(*kept) if kept else None

    def _remember(self, number: str, of: Judgement) -> None:
        oldest = self._judged.put(number, (of.model, of.version, of.outcome, of.loss))
        if oldest is not None:
            self._store.forget(oldest)  # whether it was judged is in the lake

    def _count(self, model: str, outcomes: Sequence[Outcome], answered_loss: float | None = None) -> None:
        trial = self._routes.trials().get(model)
        if trial is None or outcomes[0].experiment != trial.id:
            return
        count(trial, outcomes, answered_loss)
        self._routes.look(model, trial)


def count(trial: Trial, outcomes: Sequence[Outcome], answered_loss: float | None = None) -> None:
    """Counts what came of one id's predictions; `answered_loss` is that of an answer that was counted before."""
    loss = answered_loss
    for outcome in outcomes:
        trial.judged(outcome.at, outcome.role, outcome.loss)
        if outcome.most_gain is None:
            loss = outcome.loss
        elif loss is not None:
            losses_of = (outcome.loss, loss) if outcome.role == ROLES["shadow"] else (loss, outcome.loss)
            trial.paired(*losses_of, outcome.most_gain)


def replay(trial: Trial, outcomes: Sequence[Outcome]) -> None:
    """Counts the trial's outcomes that came after the last that it has counted."""
    answered = {outcome.id: outcome.loss for outcome in outcomes if outcome.role not in BESIDE}
    since = trial.applied + _TICK / 2
    for outcome in sorted(outcomes, key=lambda o: (o.at, o.role in BESIDE)):
        if outcome.at > since:
            count(trial, [outcome], answered.get(outcome.id))


def loss_of(model: Model, output: Sequence[float], outcome: str) -> float:
    """What an answer missed by, for an outcome that the model can have."""
    if model.kind == "classification":
        actual = labels(model, pl.DataFrame({LABEL: [outcome]}))
        return float(losses(model, np.array([output]), actual)[0])
    return float(losses(model, np.array([output[0]]), np.array([float(outcome)]))[0])


def most_gain(model: Model, other: Sequence[float], champion: Sequence[float]) -> float:
    """By how much the other version's loss can be below the champion's, whatever comes, or above it. Absolute errors of
    one number differ by no more than the predictions do. Both ways, or a bound of nearly nothing would make proof of
    the smallest difference: of two classifiers that are as good as sure, either may be a little more so."""
    if model.kind == "regression":
        return abs(other[0] - champion[0])
    actual = np.arange(len(model.label.classes))
    of_each = [losses(model, np.tile(output, (len(actual), 1)), actual) for output in (champion, other)]
    return float(np.abs(of_each[0] - of_each[1]).max())


def _text_of(model: Model, outcome: float | str) -> str:
    """The outcome as it is recorded: equal ones are of equal text. Raises Problem for one that the model cannot
    have."""
    if model.kind == "anomaly":
        raise Problem(422, f"{model.name} is judged by confirmed events: `city reference import anomaly_events`")
    if model.kind == "classification":
        if str(outcome) not in model.label.classes:
            known = ", ".join(model.label.classes)
            raise Problem(
                422, f"{model.name} has no outcome {str(outcome)[:40]!r}; known: {known}", [("outcome", known)]
            )
        return str(outcome)
    try:
        value = float(outcome)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Problem(422, f"the outcome of {model.name} is a finite number", [("outcome", "give a finite number")])
    return str(value)
