"""Predictions: who answers, what it says, and that it is recorded. One of these a server."""

import asyncio
import gc
import logging
import secrets
import time
from array import array
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from typing import Any

import numpy as np
import orjson
import polars as pl

from city.arrays import Floats
from city.features.online import online_store
from city.features.reader import FeatureReader, is_unknown
from city.models.attribution import explained
from city.models.model import Model, ModelError
from city.models.predictions import answers
from city.models.registry import RegistryAway
from city.serving.answer import Answer, answer, said
from city.serving.asked import Ask, Inputs, unknown_model
from city.serving.batching import Rows
from city.serving.feedback import Feedback
from city.serving.outcome_scores import OutcomeScores
from city.serving.record import Entry, Full, PredictionStore
from city.serving.recorded import id_of
from city.serving.routing import PLATFORM, Routes
from city.serving.trial import Experiment, Role, Trial
from city.serving.versions import Served, Versions
from city.settings import Settings
from city.tables.model import TableError
from city.web.audit import Audit
from city.web.decoders import Decoders
from city.web.keys import Caller
from city.web.metrics import Metrics
from city.web.problems import Problem

log = logging.getLogger(__name__)

_SAVE_SECONDS = 1.0
_AGAIN_SECONDS = 2.0
_SCORES_SECONDS = 5.0


class Predictor:
    """Answers of every model that was declared. Used from the event loop."""

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
        self.inputs = {name: Inputs(model) for name, model in models.items()}
        self._online = online_store(config)
        self._remote = config.redis_url is not None
        self._readers: dict[str, FeatureReader] = {}
        self._boot, self._count = secrets.token_hex(4), count(1)
        self._shadows: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self.store.start()
        works = (self._recover, self._open, self._save, self._save_scores)
        self._tasks = [asyncio.create_task(work()) for work in works]
        for task in self._tasks:
            task.add_done_callback(_tell_of_end)

    async def _recover(self) -> None:
        """Until it is done no feedback is taken, and each prediction is answered."""
        while True:
            try:
                return await self.feedback.recover()
            except Exception as error:  # a lake that is away, or what another release wrote: it is tried again
                log.warning("what was told before the restart cannot be read: %s: %s", type(error).__name__, error)
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _open(self) -> None:
        """Loads the champions, and the versions that experiments were under way with."""
        await self.versions.start()
        await asyncio.gather(*(self._open_experiment(*of) for of in self.routes.all().items()))
        # What was imported stays: to look through it again and again for garbage would hold up requests.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    async def _open_experiment(self, name: str, experiment: Experiment) -> None:
        """Only a version that is not there ends it: a registry that is away comes back."""
        while self.routes.of(name) is experiment:
            try:
                await self.versions.version(name, experiment.version)
                return
            except RegistryAway as error:
                log.warning("the experiment of %s waits: %s", name, error)
                await asyncio.sleep(_AGAIN_SECONDS)
            except ModelError as error:
                if self.routes.of(name) is experiment:
                    self.routes.remove(name, PLATFORM, str(error))

    async def _save(self) -> None:
        """What experiments count, every second: a killed server loses the requests and failures of the last one, and
        no outcomes, for those are counted again from their record."""
        while True:
            await asyncio.sleep(_SAVE_SECONDS)
            if (snapshot := self.routes.save()) is not None:
                await asyncio.to_thread(self.routes.write, snapshot)

    async def _save_scores(self) -> None:
        """A killed server loses what the outcomes of the last few seconds say of its versions, and no outcome."""
        while True:
            await asyncio.sleep(_SCORES_SECONDS)
            await asyncio.to_thread(self.scores.save)

    async def stop(self) -> None:
        """Ends when the last shadow has answered, and the last answer is recorded."""
        for task in self._tasks:
            task.cancel()
        if self._shadows:
            await asyncio.wait(self._shadows, timeout=5)
        self.versions.stop()
        if (snapshot := self.routes.save()) is not None:
            self.routes.write(snapshot)
        await asyncio.to_thread(self.scores.save)
        await asyncio.to_thread(self.store.stop)
        self.pool.shutdown(wait=False)
        self.decoders.stop()

    def model(self, name: str) -> Model:
        """Raises Problem that lists the known ones."""
        found = self.models.get(name)
        if found is None:
            raise unknown_model(name, self.models)
        return found

    def champion(self, name: str) -> Served:
        served = self.versions.champion(name)
        if served is None:
            away = self.versions.away
            why = f"the registry is away ({away})" if away else "none of its versions is a champion yet"
            raise Problem(
                503, f"{name} cannot answer: {why}. `city models list` says more", headers={"retry-after": "5"}
            )
        return served

    async def predict(self, ask: Ask, caller: Caller, began: float) -> dict[str, Any]:
        """The answer as JSON has it. `began` is when the request came, by time.perf_counter. Raises Problem."""
        model = self.model(ask.model_name)
        champion = self.champion(model.name)
        trial = self.routes.trial(model.name, champion.number)
        if (ask.features is None) == (ask.entity is None):
            raise Problem(422, "give either features or an entity", [("features", "or entity: exactly one of the two")])
        if ask.entity is not None:
            features = await self._features(model, ask.entity)
            entity = orjson.dumps(ask.entity, option=orjson.OPT_SORT_KEYS).decode()
            row = self.inputs[model.name].row(features, "entity")
        else:
            assert ask.features is not None
            entity = None
            row = self.inputs[model.name].row(ask.features)
        chosen = self.routes.choose(model.name, trial, ask.key or entity)
        served, role, given, cached = await self._answered(champion, chosen, row, trial)
        ended, at = time.perf_counter(), time.time()
        number = id_of(at, self._boot, next(self._count))
        milliseconds = (ended - began) * 1000
        kept = Entry(
            number,
            at,
            model.name,
            served.number,
            role,
            caller.name,
            entity,
            row.tobytes(),
            given,
            array("d", given.output).tobytes(),
            milliseconds,
            cached,
            # Where the champion stood in for one that failed, its answer is not of the champion's share.
            trial.id if trial is not None and role == chosen else None,
        )
        self._keep(kept)
        self.metrics.answered(model.name, served.number, role, ended - began)
        found = {"id": number, "model": model.name, "version": served.number, "role": role}
        found |= said(model, given, ask.return_probabilities)
        found |= {"cached": cached, "latency_ms": round(milliseconds, 3)}
        if ask.entity is not None:
            found["features"] = features
        if ask.explain:
            found |= await self._explained(served, row, given)
        if trial is not None and role == chosen:
            self._ask_beside(kept, row, trial, champion)
        return found

    async def predict_rows(self, name: str, rows: Rows, caller: Caller, entity: str | None = None) -> pl.DataFrame:
        """The champion's answers to checked rows (n, inputs), as `answers` gives them, with `id` and `version`; an
        experiment has no part in it. Raises Problem."""
        self.model(name)
        began, served = time.perf_counter(), self.champion(name)
        output = await asyncio.get_running_loop().run_in_executor(self.pool, served.exported.predict, rows)
        at, took = datetime.now(UTC), time.perf_counter() - began
        first = id_of(at.timestamp(), self._boot, next(self._count))
        found, kept = await self.decoders.run(
            lambda: _told_and_kept(served, rows, output, first, at, caller, entity, took), rows.nbytes
        )
        try:
            self.store.add_frame(name, kept)
        except Full as error:
            raise Problem(503, str(error), headers={"retry-after": "5"}) from None
        self.metrics.answered(name, served.number, "champion", took)
        return found

    async def _features(self, model: Model, entity: Mapping[str, str | int]) -> dict[str, Any]:
        reader = self._readers.get(model.name)
        if reader is None:
            reader = self._readers[model.name] = FeatureReader(self._online, model.online)
        try:
            # A file's page in memory is read sooner than a thread wakes.
            (found,) = await asyncio.to_thread(reader.read, [entity]) if self._remote else reader.read([entity])
        except TableError as error:
            raise Problem(422, str(error), [("entity", str(error))]) from None
        if is_unknown(found):
            told = ", ".join(f"{name}={value}" for name, value in entity.items())[:200]
            raise Problem(
                404, f"nothing is known of {told} in {model.features} now: it is unknown, or its features are too old"
            )
        return found

    async def _answered(
        self, champion: Served, role: Role, row: Rows, trial: Trial | None
    ) -> tuple[Served, Role, Answer, bool]:
        """An experiment's version that fails costs its caller nothing: the champion answers."""
        if trial is None:
            try:
                output, cached = await champion.output(row)
                return champion, "champion", answer(champion.model, champion.exported.calibration, output), cached
            except Exception as error:
                raise _failed(champion) from error
        name, other_failed = champion.model.name, False
        if role != "champion":
            other = self.versions.held(name, trial.experiment.version)
            if other is not None:
                try:
                    return (other, role, *(await self._timed(other, role, row, trial)))
                except Exception as error:
                    other_failed = True
                    trial.failed(role)
                    self.metrics.errors.labels(name, role).inc()
                    log.warning("%s version %d failed as %s: %s", name, other.number, role, error)
        champion_failed = False
        try:
            return (champion, "champion", *(await self._timed(champion, "champion", row, trial)))
        except Exception as error:
            champion_failed = True
            trial.failed("champion")
            raise _failed(champion) from error
        finally:
            if other_failed:
                trial.failed_beside(other_failed, champion_failed)
            self.routes.look(name, trial)

    async def _timed(self, served: Served, role: Role, row: Rows, trial: Trial) -> tuple[Answer, bool]:
        began = time.perf_counter()
        output, cached = await served.output(row)
        given = answer(served.model, served.exported.calibration, output)
        trial.answered(role, None if cached else (time.perf_counter() - began) * 1000)
        self.routes.look(served.model.name, trial)
        return given, cached

    async def _explained(self, served: Served, row: Rows, given: Answer) -> dict[str, Any]:
        model = served.model
        if model.kind == "anomaly":
            return said(model, given, True)
        place = model.label.classes.index(str(given.prediction)) if model.kind == "classification" else 0
        try:
            shares, base = await asyncio.get_running_loop().run_in_executor(
                self.pool, explained, served.exported, model, row, place
            )
        except ModelError as error:
            raise Problem(409, str(error), [("explain", "leave it out")]) from None
        return {"contributions": shares, "base": base}

    def _ask_beside(self, kept: Entry, row: Rows, trial: Trial, champion: Served) -> None:
        """Asks the version that did not answer about the same input: a shadow its share of the requests, the champion
        wherever a canary answered. Both are judged by the same outcome."""
        experiment = trial.experiment
        if experiment.kind == "shadow":
            other, role = self.versions.held(kept.model, experiment.version), trial.role
            if other is None or np.random.random() >= experiment.share:
                return
        elif experiment.kind == "canary" and kept.role == trial.role:
            other, role = champion, "control"
        else:
            return
        task = asyncio.create_task(self._beside(kept, row, other, role, trial))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _beside(self, kept: Entry, row: Rows, other: Served, role: Role, trial: Trial) -> None:
        try:
            given, cached = await self._timed(other, role, row, trial)
        except Exception as error:
            trial.failed(role)
            if role == "control":
                trial.failed_beside(False, True)
            log.warning("%s version %d failed as %s: %s", kept.model, other.number, role, error)
            return
        output = array("d", given.output).tobytes()
        # The same id: what came of the one tells of the other.
        beside = kept._replace(version=other.number, role=role, answer=given, output=output, cached=cached)
        try:
            self.store.add(beside)
            self.feedback.judge_late(kept.id, kept.caller)
        except (Full, Problem) as error:
            log.warning("%s version %d is not compared here: %s", kept.model, other.number, error)

    def _keep(self, entry: Entry) -> None:
        try:
            self.store.add(entry)
        except Full as error:
            raise Problem(503, str(error), headers={"retry-after": "5"}) from None


def _failed(champion: Served) -> Problem:
    return Problem(
        500, f"{champion.model.name} version {champion.number} failed: its card and the server's log say more"
    )


def _tell_of_end(task: "asyncio.Task[None]") -> None:
    """Nobody waits for it: what ended it is said in the log."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a task of the server has ended", exc_info=error)


def _told_and_kept(
    served: Served,
    rows: Rows,
    output: Floats,
    first: str,
    at: datetime,
    caller: Caller,
    entity: str | None,
    took: float,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Answers to rows with their ids, which begin with `first`; and the same as they are recorded."""
    model = served.model
    told = answers(model, served.exported.calibration, output).with_columns(
        pl.format(f"{first}.{{}}", pl.int_range(pl.len())).alias("id"), pl.lit(served.number).alias("version")
    )
    given = pl.from_numpy(rows, list(model.inputs)).with_columns(pl.all().fill_nan(None))
    kept = told.with_columns(
        pl.lit(at).alias("at"),
        pl.lit("champion").alias("role"),
        pl.lit(caller.name).alias("caller"),
        pl.lit(entity, pl.String).alias("entity"),
        given.select(pl.struct(pl.all()).struct.json_encode()).to_series().alias("inputs"),
        pl.lit(took * 1000).alias("latency_ms"),
        pl.lit(False).alias("cached"),
        pl.lit(None, pl.String).alias("experiment"),
    )
    return told, kept
