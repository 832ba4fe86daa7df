"""Feedback: records the outcome of each prediction once, at any time after it, and counts it for the versions that
predicted."""

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
from city.serving.responses import FeedbackResponse
from city.serving.roles import BESIDE, ROLES
from city.serving.routing import Routes
from city.serving.trial import Trial
from city.settings import Settings
from city.web.problems import Problem

log = logging.getLogger(__name__)

AWAY = (OSError, PolarsError, DeltaError)
"""The exceptions of reading a lake that is unavailable."""
_TICK = 1e-5
"""Least time between two outcomes, in seconds. It lets a time tell which outcomes were counted. It is greater than the
rounding of times in a table."""
_RETRY = {"retry-after": "2"}


class Judgement(NamedTuple):
    """The outcome of a prediction and the loss of its answer."""

    model: str
    version: int
    outcome: str
    loss: float
    """As `city.models.judge.losses` defines it for the kind of model."""


_JudgementRow = tuple[str, int, str, float]
"""A judgement as a plain tuple."""


class Feedback:
    """Records outcomes of predictions and compares the versions of a trial by them. It is used from the event loop.
    Reads of the lake run in a thread."""

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
        self._judged = Remembered[_JudgementRow]()
        self._newest = 0.0
        self._recovered = False

    async def judge(self, number: str, outcome: float | str, caller: str) -> FeedbackResponse:
        """Judges the prediction with the id `number` by its outcome, and returns the response. The same outcome again
        changes nothing and gets the same response. Raises Problem for an unknown prediction, for an outcome that its
        model cannot have, for an outcome that differs from the recorded one, and while outcomes cannot be recorded."""
        if not self._recovered:
            raise Problem(503, "outcomes from before the restart are being read: send this one again", headers=_RETRY)
        judgement, predictions = self._recall_judgement(number), self._store.recent(number)
        if judgement is None and not predictions:
            predictions, judgement = await self._find_prediction(number)
            judgement = self._recall_judgement(number) or judgement  # another request may have judged it meanwhile
        if judgement is not None:
            return self._repeat_response(number, judgement, outcome)
        answered = predictions[0]
        model = self._models[answered.model]
        text = _text_of(model, outcome)
        at = self._newest = max(time.time(), self._newest + _TICK)
        outcomes = [self._make_outcome(model, number, at, p, caller, text, answered) for p in predictions]
        self._record_outcomes(outcomes)
        self._update_scores(predictions, outcomes)
        loss = outcomes[0].loss
        self._remember(number, Judgement(answered.model, answered.version, text, loss))
        self._count_for_trial(answered.model, outcomes)
        return {"id": number, "model": answered.model, "version": answered.version, "loss": loss, "repeated": False}

    def judge_late(self, number: str, caller: str) -> None:
        """Judges the answer of a shadow or control version whose outcome arrived before the answer did. Does nothing
        while there is no outcome. Raises Problem where the outcome cannot be recorded."""
        judgement = self._recall_judgement(number)
        predictions = self._store.recent(number)
        if judgement is None or len(predictions) < 2:
            return
        model = self._models[judgement.model]
        at = self._newest = max(time.time(), self._newest + _TICK)
        outcomes = [
            self._make_outcome(model, number, at, p, caller, judgement.outcome, predictions[0]) for p in predictions
        ]
        self._record_outcomes(outcomes[1:])
        self._update_scores(predictions[1:], outcomes[1:])
        self._count_for_trial(judgement.model, outcomes[1:], judgement.loss)

    async def recover(self) -> None:
        """Takes over the outcomes of an earlier process: those that it did not write to the lake, and those that its
        trials did not count. Raises `AWAY` while the lake is unavailable."""
        trials = self._routes.trials()

        def read() -> tuple[list[Outcome], dict[str, list[Outcome]]]:
            journaled = self._store.recover()
            return journaled, {name: trial_outcomes(self._lake, name, t.id, t.applied) for name, t in trials.items()}

        journaled, recorded = await asyncio.to_thread(read)
        for outcome in journaled:
            if outcome.role not in BESIDE and outcome.model in self._models:
                self._remember(outcome.id, Judgement(outcome.model, outcome.version, outcome.outcome, outcome.loss))
        for model, trial in trials.items():
            outcomes = [outcome for outcome in (*recorded[model], *journaled) if outcome.experiment == trial.id]
            replay(trial, list({(outcome.id, outcome.version): outcome for outcome in outcomes}.values()))
            self._newest = max(self._newest, trial.applied)
            self._routes.end_if_worse(model, trial)
        self._recovered = True

    async def _find_prediction(self, number: str) -> tuple[list[Prediction], Judgement | None]:
        """Looks up a prediction and its judgement in the record. Raises Problem for an unknown id and while the record
        is unavailable."""
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

    def _repeat_response(self, number: str, first: Judgement, outcome: float | str) -> FeedbackResponse:
        """Returns the response to an outcome that repeats the one of the first judgement. Raises Problem (409) if it
        differs."""
        text = _text_of(self._models[first.model], outcome)
        if text != first.outcome:
            detail = f"prediction {number} was judged by the outcome {first.outcome} already; {text[:40]} is not taken"
            raise Problem(409, detail, [("outcome", f"is {first.outcome} already")])
        return {"id": number, "model": first.model, "version": first.version, "loss": first.loss, "repeated": True}

    def _make_outcome(
        self, model: Model, number: str, at: float, prediction: Prediction, caller: str, text: str, answered: Prediction
    ) -> Outcome:
        """Judges one version's prediction. `answered` is the prediction that the caller got."""
        gain = None
        if prediction.role in BESIDE:
            other, champion = (prediction, answered) if prediction.role == ROLES["shadow"] else (answered, prediction)
            gain = most_gain(model, other.output, champion.output)
        loss = loss_of(model, prediction.output, text)
        return Outcome(
            number,
            at,
            model.name,
            prediction.version,
            prediction.role,
            caller,
            text,
            loss,
            prediction.experiment,
            gain,
        )

    def _record_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Gives the outcomes to the prediction store. Raises Problem where it cannot take them."""
        try:
            self._store.add_outcomes(outcomes)
        except Full as error:
            raise Problem(503, str(error), headers=_RETRY) from None
        except OSError as error:
            log.error("feedback cannot be kept: %s", error)
            raise Problem(503, "the outcome cannot be kept now: tell it again", headers=_RETRY) from None

    def _update_scores(self, predictions: Sequence[Prediction], outcomes: Sequence[Outcome]) -> None:
        now = time.time()  # not the outcomes' `at`, which does not go back when the clock does
        for prediction, outcome in zip(predictions, outcomes, strict=True):
            self._scores.add(outcome.model, outcome.version, now, prediction.prediction, outcome.outcome, outcome.loss)

    def _recall_judgement(self, number: str) -> Judgement | None:
        row = self._judged.get(number)
        return Judgement(*row) if row else None

    def _remember(self, number: str, judgement: Judgement) -> None:
        oldest = self._judged.put(number, (judgement.model, judgement.version, judgement.outcome, judgement.loss))
        if oldest is not None:
            self._store.forget(oldest)  # the lake says whether it was judged

    def _count_for_trial(self, model: str, outcomes: Sequence[Outcome], answered_loss: float | None = None) -> None:
        trial = self._routes.trials().get(model)
        if trial is None or outcomes[0].experiment != trial.id:
            return
        count(trial, outcomes, answered_loss)
        self._routes.end_if_worse(model, trial)


def count(trial: Trial, outcomes: Sequence[Outcome], answered_loss: float | None = None) -> None:
    """Counts the outcomes of one id's predictions for a trial. `answered_loss` is the loss of the answer where an
    earlier call counted that."""
    loss = answered_loss
    for outcome in outcomes:
        trial.count_outcome(outcome.at, outcome.role, outcome.loss)
        if outcome.most_gain is None:
            loss = outcome.loss
        elif loss is not None:
            pair = (outcome.loss, loss) if outcome.role == ROLES["shadow"] else (loss, outcome.loss)
            trial.compare_losses(*pair, outcome.most_gain)


def replay(trial: Trial, outcomes: Sequence[Outcome]) -> None:
    """Counts the trial's outcomes that are newer than the last one that it has counted."""
    answered_losses = {outcome.id: outcome.loss for outcome in outcomes if outcome.role not in BESIDE}
    since = trial.applied + _TICK / 2
    for outcome in sorted(outcomes, key=lambda o: (o.at, o.role in BESIDE)):
        if outcome.at > since:
            count(trial, [outcome], answered_losses.get(outcome.id))


def loss_of(model: Model, output: Sequence[float], outcome: str) -> float:
    """Returns the loss of a model's output, given its outcome as text. The outcome must be one that the model can
    have; `_text_of` checks that."""
    if model.kind == "classification":
        actual = labels(model, pl.DataFrame({LABEL: [outcome]}))
        return float(losses(model, np.array([output]), actual)[0])
    return float(losses(model, np.array([output[0]]), np.array([float(outcome)]))[0])


def most_gain(model: Model, other: Sequence[float], champion: Sequence[float]) -> float:
    """Returns the largest difference, over all outcomes, between the other version's loss and the champion's, from both
    versions' outputs for one input.

    For a regression that is the difference of the two predictions, because absolute errors differ by no more. The
    difference counts in both directions. A bound in one direction only can be nearly zero: of two classifiers that are
    almost certain, either may be slightly more so. Such a bound would turn the smallest difference into proof.
    """
    if model.kind == "regression":
        return abs(other[0] - champion[0])
    actual = np.arange(len(model.label.classes))
    loss_vectors = [losses(model, np.tile(output, (len(actual), 1)), actual) for output in (champion, other)]
    return float(np.abs(loss_vectors[0] - loss_vectors[1]).max())


def _text_of(model: Model, outcome: float | str) -> str:
    """Returns the outcome as the text that is recorded. Equal outcomes have equal texts. Raises Problem for an outcome
    that the model cannot have."""
    if model.kind == "anomaly":
        raise Problem(422, f"{model.name} is judged by confirmed events: `city reference import anomaly_events`")
    if model.kind == "classification":
        if str(outcome) not in model.label.classes:
            classes = ", ".join(model.label.classes)
            raise Problem(
                422, f"{model.name} has no outcome {str(outcome)[:40]!r}; known: {classes}", [("outcome", classes)]
            )
        return str(outcome)
    try:
        value = float(outcome)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Problem(422, f"the outcome of {model.name} is a finite number", [("outcome", "give a finite number")])
    return str(value)
