"""Runs predictions: chooses the version, returns its answer and records it. A server has one predictor."""

import asyncio
import logging
import secrets
import time
from array import array
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count

import numpy as np
import polars as pl

from city.models.model import Model
from city.serving.answer import Answer, answer_fields
from city.serving.batch_frames import build_frames
from city.serving.batching import Rows
from city.serving.explanation import explain
from city.serving.feedback import Feedback
from city.serving.inputs import PredictionRequest, unknown_model
from city.serving.outcome_scores import OutcomeScores
from city.serving.predictor_tasks import PredictorTasks
from city.serving.record import PredictionRecord, PredictionStore, QueueFull
from city.serving.record_queries import make_prediction_id
from city.serving.request_rows import Asked, RequestRows
from city.serving.responses import PredictionResponse
from city.serving.roles import Role
from city.serving.routing import Routes
from city.serving.trial import Trial
from city.serving.versions import LoadedVersion, Versions
from city.settings import Settings
from city.web.audit import Audit
from city.web.decoders import Decoders
from city.web.keys import Caller
from city.web.metrics import Metrics
from city.web.problems import Problem

log = logging.getLogger(__name__)


class Predictor:
    """Answers requests for every declared model. It is used from the event loop."""

    def __init__(self, config: Settings, models: Mapping[str, Model], metrics: Metrics) -> None:
        self.config, self.models, self.metrics = config, models, metrics
        self.pool = ThreadPoolExecutor(2, "predict")
        self.decoders = Decoders()
        self.audit = Audit(config)
        self.versions = Versions(config, models, self.pool)
        self.routes = Routes(config, self.audit, models)
        self.store = PredictionStore(config, models)
        self.scores = OutcomeScores(config, models)
        self.feedback = Feedback(config, models, self.store, self.routes, self.scores)
        self.rows = RequestRows(config, models)
        self._names = {name: model for model in models.values() for name in (model.name, *model.aliases)}
        self._boot, self._count = secrets.token_hex(4), count(1)
        self._background_runs: set[asyncio.Task[None]] = set()
        self._tasks = PredictorTasks(self.versions, self.routes, self.scores, self.feedback)

    async def start(self) -> None:
        """Starts the prediction store and the background tasks. Returns at once."""
        self.store.start()
        self._tasks.start()

    async def stop(self) -> None:
        """Stops the predictor. Waits for pending shadow predictions (at most 5 s) and for the record of the last
        answers."""
        self._tasks.stop()
        if self._background_runs:
            await asyncio.wait(self._background_runs, timeout=5)
        self.versions.stop()
        if (snapshot := self.routes.changed_snapshot()) is not None:
            self.routes.write(snapshot)
        await asyncio.to_thread(self.scores.save)
        await asyncio.to_thread(self.store.stop)
        self.pool.shutdown(wait=False)
        self.decoders.stop()

    def model(self, name: str) -> Model:
        """Returns the declared model of a name or an alias. Raises Problem (404) that lists the declared models."""
        model = self._names.get(name)
        if model is None:
            raise unknown_model(name, self.models)
        return model

    def count_error(self, name: str, status: int) -> None:
        """Counts a request that ended in a problem."""
        model = self._names.get(name)
        self.metrics.errors.labels(model.name if model else "unknown", str(status)).inc()

    def champion(self, name: str) -> LoadedVersion:
        """Returns the champion of a declared model. Raises Problem (503) while there is none, with the reason."""
        champion = self.versions.champion(name)
        if champion is None:
            error = self.versions.registry_error
            reason = f"the registry is unavailable ({error})" if error else "none of its versions is a champion yet"
            raise Problem(
                503, f"{name} cannot answer: {reason}. `city models list` says more", headers={"retry-after": "5"}
            )
        return champion

    async def predict(self, request: PredictionRequest, caller: Caller, arrival: float) -> PredictionResponse:
        """Answers a request for one row, records the answer and returns the JSON response. `arrival` is the time of the
        request's arrival, from time.perf_counter. Raises Problem for an invalid request, while the model cannot answer,
        and where the answer cannot be recorded."""
        model = self.model(request.model_name)
        champion = self.champion(model.name)
        trial = self.routes.trial(model.name, champion.number)
        asked = await self.rows.read(model, request)
        chosen_role = self.routes.choose_role(model.name, trial, request.key or asked.entity)
        version, role, answer, cached = await self._run_with_fallback(champion, chosen_role, asked, trial)
        seconds, at = time.perf_counter() - arrival, time.time()
        prediction_id = make_prediction_id(at, self._boot, next(self._count))
        milliseconds = seconds * 1000
        record = PredictionRecord(
            prediction_id,
            at,
            model.name,
            version.number,
            role,
            caller.name,
            asked.entity,
            asked.row.tobytes(),
            answer,
            array("d", answer.output).tobytes(),
            milliseconds,
            cached,
            # An answer of the champion in place of a version that failed does not belong to the champion's share.
            trial.id if trial is not None and role == chosen_role else None,
        )
        try:
            self.store.add(record)
        except QueueFull as error:
            raise _not_recorded(error) from None
        self.metrics.answered(model.name, version.number, role, seconds)
        response: PredictionResponse = {
            "id": prediction_id,
            "model": model.name,
            "version": version.number,
            "role": role,
            **answer_fields(model, answer, request.return_probabilities),
            "cached": cached,
            "latency_ms": round(milliseconds, 3),
        }
        if asked.features is not None:
            response["features"] = asked.features
        if request.explain:
            response |= await explain(version, asked.row, answer, self.pool)
        if trial is not None and role == chosen_role:
            self._start_background_run(record, asked, trial, champion)
        return response

    async def predict_rows(
        self,
        name: str,
        rows: Rows,
        caller: Caller,
        entity: str | None = None,
        features: pl.DataFrame | None = None,
    ) -> pl.DataFrame:
        """Answers validated rows (n, inputs) with the champion and records the answers. `features` are the view's
        columns of the rows, where more than the inputs are known: a threshold may depend on them. Returns the columns
        of `answers` with `id` and `version`. Experiments do not take part. Raises Problem while the model cannot answer
        and where the answers cannot be recorded."""
        name = self.model(name).name
        start, champion = time.perf_counter(), self.champion(name)
        output = await asyncio.get_running_loop().run_in_executor(self.pool, champion.exported.predict, rows)
        at, run_seconds = datetime.now(UTC), time.perf_counter() - start
        id_prefix = make_prediction_id(at.timestamp(), self._boot, next(self._count))
        answers, record = await self.decoders.run(
            lambda: build_frames(champion, rows, output, id_prefix, at, caller, entity, run_seconds, features),
            rows.nbytes,
        )
        try:
            self.store.add_frame(name, record)
        except QueueFull as error:
            raise _not_recorded(error) from None
        self.metrics.answered(name, champion.number, "champion", run_seconds)
        return answers

    async def _run_with_fallback(
        self, champion: LoadedVersion, role: Role, asked: Asked, trial: Trial | None
    ) -> tuple[LoadedVersion, Role, Answer, bool]:
        """Runs the version of the chosen role. If an experiment's version fails, the champion answers in its place.
        Returns the version that answered, its role, its answer, and whether the answer was cached. Raises Problem where
        the champion fails."""
        if trial is None:
            try:
                answer, cached = await champion.answer(asked.row, asked.category)
                return champion, "champion", answer, cached
            except Exception as error:
                raise _champion_failed(champion) from error
        name, other_failed = champion.model.name, False
        if role != "champion":
            other = self.versions.loaded_version(name, trial.experiment.version)
            if other is not None:
                try:
                    return (other, role, *(await self._run_timed(other, role, asked, trial)))
                except Exception as error:
                    other_failed = True
                    trial.count_failure(role)
                    self.metrics.errors.labels(name, role).inc()
                    log.warning("%s version %d failed as %s: %s", name, other.number, role, error)
        champion_failed = False
        try:
            return (champion, "champion", *(await self._run_timed(champion, "champion", asked, trial)))
        except Exception as error:
            champion_failed = True
            trial.count_failure("champion")
            raise _champion_failed(champion) from error
        finally:
            if other_failed:
                trial.compare_failures(other_failed, champion_failed)
            self.routes.end_if_worse(name, trial)

    async def _run_timed(self, version: LoadedVersion, role: Role, asked: Asked, trial: Trial) -> tuple[Answer, bool]:
        """Runs a version on one row and counts the answer for the trial. Returns the answer and whether it was
        cached."""
        start = time.perf_counter()
        answer, cached = await version.answer(asked.row, asked.category)
        trial.count_answer(role, None if cached else (time.perf_counter() - start) * 1000)
        self.routes.end_if_worse(version.model.name, trial)
        return answer, cached

    def _start_background_run(
        self, record: PredictionRecord, asked: Asked, trial: Trial, champion: LoadedVersion
    ) -> None:
        """Starts a run of the version that did not answer, on the same input. A shadow runs for its share of the
        requests, the champion for each answer of a canary. The same outcome judges both versions."""
        experiment = trial.experiment
        if experiment.kind == "shadow":
            other, role = self.versions.loaded_version(record.model, experiment.version), trial.role
            if other is None or np.random.random() >= experiment.share:
                return
        elif experiment.kind == "canary" and record.role == trial.role:
            other, role = champion, "control"
        else:
            return
        task = asyncio.create_task(self._run_in_background(record, asked, other, role, trial))
        self._background_runs.add(task)
        task.add_done_callback(self._background_runs.discard)

    async def _run_in_background(
        self, record: PredictionRecord, asked: Asked, other: LoadedVersion, role: Role, trial: Trial
    ) -> None:
        """Runs a shadow or the control on the input of a recorded answer, and records its answer."""
        try:
            answer, cached = await self._run_timed(other, role, asked, trial)
        except Exception as error:
            trial.count_failure(role)
            if role == "control":
                trial.compare_failures(False, True)
            log.warning("%s version %d failed as %s: %s", record.model, other.number, role, error)
            return
        output = array("d", answer.output).tobytes()
        # Both answers have the same id, because one outcome judges both.
        background = record._replace(version=other.number, role=role, answer=answer, output=output, cached=cached)
        try:
            self.store.add(background)
            self.feedback.judge_late(record.id, record.caller)
        except (QueueFull, Problem) as error:
            log.warning("%s version %d is not compared here: %s", record.model, other.number, error)


def _champion_failed(champion: LoadedVersion) -> Problem:
    return Problem(
        500, f"{champion.model.name} version {champion.number} failed: its card and the server's log say more"
    )


def _not_recorded(error: QueueFull) -> Problem:
    return Problem(503, str(error), headers={"retry-after": "5"})
