"""Feedback: records the outcome of each prediction once, at any time after it, and counts it for the versions that
predicted."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from deltalake.exceptions import DeltaError
from polars.exceptions import PolarsError

from city.models.model import Model
from city.serving.fifo_cache import FifoCache
from city.serving.outcome_losses import most_gain, outcome_loss, outcome_text
from city.serving.outcome_scores import OutcomeScores
from city.serving.record import PredictionStore, QueueFull
from city.serving.record_queries import Outcome, Prediction, find_trial_outcomes, prediction_day
from city.serving.responses import FeedbackResponse
from city.serving.roles import BACKGROUND_ROLES, ROLES
from city.serving.routing import Routes
from city.serving.trial import Trial
from city.settings import Settings
from city.web.problems import Problem

log = logging.getLogger(__name__)

LAKE_ERRORS = (OSError, PolarsError, DeltaError)
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
        self._judgements = FifoCache[_JudgementRow]()
        self._newest = 0.0
        self._recovered = False

    async def judge(self, prediction_id: str, outcome: float | str, caller: str) -> FeedbackResponse:
        """Judges a prediction by its outcome, and returns the response. The same outcome again changes nothing and gets
        the same response. Raises Problem for an unknown prediction, for an outcome that its model cannot have, for an
        outcome that differs from the recorded one, and while outcomes cannot be recorded."""
        if not self._recovered:
            raise Problem(503, "outcomes from before the restart are being read: send this one again", headers=_RETRY)
        judgement, predictions = self._recall_judgement(prediction_id), self._store.recent(prediction_id)
        if judgement is None and not predictions:
            predictions, judgement = await self._find_prediction(prediction_id)
            # Another request may have judged it meanwhile.
            judgement = self._recall_judgement(prediction_id) or judgement
        if judgement is not None:
            return self._repeat_response(prediction_id, judgement, outcome)
        primary = predictions[0]
        model = self._models[primary.model]
        text = outcome_text(model, outcome)
        at = self._newest = max(time.time(), self._newest + _TICK)
        outcomes = [self._make_outcome(model, prediction_id, at, p, caller, text, primary) for p in predictions]
        self._record_outcomes(outcomes)
        self._update_scores(predictions, outcomes)
        loss = outcomes[0].loss
        judgement = Judgement(primary.model, primary.version, text, loss)
        self._remember(prediction_id, judgement)
        self._count_for_trial(primary.model, outcomes)
        return _feedback_response(prediction_id, judgement, repeated=False)

    def judge_late(self, prediction_id: str, caller: str) -> None:
        """Judges the answer of a shadow or control version whose outcome arrived before the answer did. Does nothing
        while there is no outcome. Raises Problem where the outcome cannot be recorded."""
        judgement = self._recall_judgement(prediction_id)
        predictions = self._store.recent(prediction_id)
        if judgement is None or len(predictions) < 2:
            return
        model = self._models[judgement.model]
        at = self._newest = max(time.time(), self._newest + _TICK)
        outcomes = [
            self._make_outcome(model, prediction_id, at, p, caller, judgement.outcome, predictions[0])
            for p in predictions
        ]
        self._record_outcomes(outcomes[1:])
        self._update_scores(predictions[1:], outcomes[1:])
        self._count_for_trial(judgement.model, outcomes[1:], judgement.loss)

    async def recover(self) -> None:
        """Takes over the outcomes of an earlier process: those that it did not write to the lake, and those that its
        trials did not count. Raises `LAKE_ERRORS` while the lake is unavailable."""
        trials = self._routes.trials()

        def read() -> tuple[list[Outcome], dict[str, list[Outcome]]]:
            journaled = self._store.recover()
            return journaled, {
                name: find_trial_outcomes(self._lake, name, t.id, t.newest_outcome_at) for name, t in trials.items()
            }

        journaled, recorded = await asyncio.to_thread(read)
        for outcome in journaled:
            if outcome.role not in BACKGROUND_ROLES and outcome.model in self._models:
                self._remember(outcome.id, Judgement(outcome.model, outcome.version, outcome.outcome, outcome.loss))
        for model, trial in trials.items():
            outcomes = [outcome for outcome in (*recorded[model], *journaled) if outcome.experiment == trial.id]
            replay_outcomes(trial, list({(outcome.id, outcome.version): outcome for outcome in outcomes}.values()))
            self._newest = max(self._newest, trial.newest_outcome_at)
            self._routes.end_if_worse(model, trial)
        self._recovered = True

    async def _find_prediction(self, prediction_id: str) -> tuple[list[Prediction], Judgement | None]:
        """Looks up a prediction and its judgement in the record. Raises Problem for an unknown id and while the record
        is unavailable."""
        if prediction_day(prediction_id) is None:
            raise Problem(
                404,
                f"no prediction {prediction_id[:64]!r}: give the `id` of an answer of /predict",
                [("id", "is not an id of this server")],
            )
        try:
            predictions, outcomes = await asyncio.to_thread(self._store.find, prediction_id)
        except LAKE_ERRORS as error:
            log.warning("cannot accept feedback to %s: %s", prediction_id, error)
            raise Problem(503, "the record of predictions cannot be read now: send it again", headers=_RETRY) from None
        if not predictions:
            if self._store.error:
                raise Problem(503, "the record of predictions is unavailable now: send it again", headers=_RETRY)
            raise Problem(
                404, f"no prediction {prediction_id[:64]!r} was recorded, or its day is not in the lake any more"
            )
        first = next((outcome for outcome in outcomes if outcome.role not in BACKGROUND_ROLES), None)
        if first is None:
            return predictions, None
        return predictions, Judgement(first.model, first.version, first.outcome, first.loss)

    def _repeat_response(self, prediction_id: str, first: Judgement, outcome: float | str) -> FeedbackResponse:
        """Returns the response to an outcome that repeats the one of the first judgement. Raises Problem (409) if it
        differs."""
        text = outcome_text(self._models[first.model], outcome)
        if text != first.outcome:
            raise Problem(
                409,
                f"prediction {prediction_id} was judged by the outcome {first.outcome} already; "
                f"{text[:40]} is not taken",
                [("outcome", f"is {first.outcome} already")],
            )
        return _feedback_response(prediction_id, first, repeated=True)

    def _make_outcome(
        self,
        model: Model,
        prediction_id: str,
        at: float,
        prediction: Prediction,
        caller: str,
        text: str,
        primary: Prediction,
    ) -> Outcome:
        """Judges one version's prediction. `primary` is the prediction that the caller got."""
        gain = None
        if prediction.role in BACKGROUND_ROLES:
            other, champion = (prediction, primary) if prediction.role == ROLES["shadow"] else (primary, prediction)
            gain = most_gain(model, other.output, champion.output)
        loss = outcome_loss(model, prediction.output, text)
        return Outcome(
            prediction_id,
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
        except QueueFull as error:
            raise Problem(503, str(error), headers=_RETRY) from None
        except OSError as error:
            log.error("cannot store feedback: %s", error)
            raise Problem(503, "the outcome cannot be stored now: send it again", headers=_RETRY) from None

    def _update_scores(self, predictions: Sequence[Prediction], outcomes: Sequence[Outcome]) -> None:
        now = time.time()  # not the outcomes' `at`, which does not go back when the clock does
        for prediction, outcome in zip(predictions, outcomes, strict=True):
            self._scores.add(outcome.model, outcome.version, now, prediction.prediction, outcome.outcome, outcome.loss)

    def _recall_judgement(self, prediction_id: str) -> Judgement | None:
        row = self._judgements.get(prediction_id)
        return Judgement(*row) if row else None

    def _remember(self, prediction_id: str, judgement: Judgement) -> None:
        oldest = self._judgements.put(
            prediction_id, (judgement.model, judgement.version, judgement.outcome, judgement.loss)
        )
        if oldest is not None:
            self._store.forget(oldest)  # the lake says whether it was judged

    def _count_for_trial(self, model: str, outcomes: Sequence[Outcome], primary_loss: float | None = None) -> None:
        trial = self._routes.trials().get(model)
        if trial is None or outcomes[0].experiment != trial.id:
            return
        count_outcomes(trial, outcomes, primary_loss)
        self._routes.end_if_worse(model, trial)


def _feedback_response(prediction_id: str, judgement: Judgement, *, repeated: bool) -> FeedbackResponse:
    return {
        "id": prediction_id,
        "model": judgement.model,
        "version": judgement.version,
        "loss": judgement.loss,
        "repeated": repeated,
    }


def count_outcomes(trial: Trial, outcomes: Sequence[Outcome], primary_loss: float | None = None) -> None:
    """Counts the outcomes of one id's predictions for a trial. `primary_loss` is the loss of the answer where an
    earlier call counted that."""
    loss = primary_loss
    for outcome in outcomes:
        trial.count_outcome(outcome.at, outcome.role, outcome.loss)
        if outcome.most_gain is None:
            loss = outcome.loss
        elif loss is not None:
            pair = (outcome.loss, loss) if outcome.role == ROLES["shadow"] else (loss, outcome.loss)
            trial.compare_losses(*pair, outcome.most_gain)


def replay_outcomes(trial: Trial, outcomes: Sequence[Outcome]) -> None:
    """Counts the trial's outcomes that are newer than the last one that it has counted."""
    primary_losses = {outcome.id: outcome.loss for outcome in outcomes if outcome.role not in BACKGROUND_ROLES}
    since = trial.newest_outcome_at + _TICK / 2
    for outcome in sorted(outcomes, key=lambda o: (o.at, o.role in BACKGROUND_ROLES)):
        if outcome.at > since:
            count_outcomes(trial, [outcome], primary_losses.get(outcome.id))
