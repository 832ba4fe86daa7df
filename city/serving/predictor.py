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
from city.models.examples import labels
from city.models.judge import losses
from city.models.labels import LABEL
from city.models.model import Model, ModelError
from city.models.predictions import answers
from city.serving.answer import Answer, answer, said
from city.serving.asked import Ask, Inputs
from city.serving.audit import Audit
from city.serving.batching import Rows
from city.serving.decoders import Decoders
from city.serving.keys import Caller
from city.serving.metrics import Metrics
from city.serving.problems import Problem
from city.serving.record import Entry, Full, Outcome, PredictionStore
from city.serving.routing import Role, Routes, other_role
from city.serving.versions import Served, Versions, explained
from city.settings import Settings
from city.tables.model import TableError

log = logging.getLogger(__name__)


class Predictor:
    """Answers of every model that was declared. Used from the event loop."""

    def __init__(self, config: Settings, models: Mapping[str, Model], metrics: Metrics) -> None:
        self.config, self.models, self.metrics = config, models, metrics
        self.pool = ThreadPoolExecutor(2, "predict")
        self.decoders = Decoders()
        self.audit = Audit(config)
        self.versions = Versions(config, models, self.pool)
        self.routes = Routes(config, self.audit)
        self.store = PredictionStore(config, models)
        self.inputs = {name: Inputs(model) for name, model in models.items()}
        self._online = online_store(config)
        self._remote = config.redis_url is not None
        self._readers: dict[str, FeatureReader] = {}
        self._boot, self._count = secrets.token_hex(5), count(1)
        self._shadows: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self.store.start()
        self._opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        """Loads the champions, and the versions that experiments were under way with."""
        await self.versions.start()
        for name, experiment in self.routes.all().items():
            try:
                await self.versions.version(name, experiment.version)
            except ModelError as error:
                self.routes.remove(name, "the platform itself", str(error))
        # What was imported stays: to look through it again and again for garbage would hold up requests.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    async def stop(self) -> None:
        """Ends when the last shadow has answered, and the last answer is recorded."""
        self._opening.cancel()
        if self._shadows:
            await asyncio.wait(self._shadows, timeout=5)
        self.versions.stop()
        await asyncio.to_thread(self.store.stop)
        self.pool.shutdown(wait=False)
        self.decoders.stop()

    def model(self, name: str) -> Model:
        """Raises Problem that lists the known ones."""
        found = self.models.get(name)
        if found is None:
            raise Problem(404, f"no model {name[:60]!r}; known: {', '.join(sorted(self.models)) or 'none'}")
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
        role = self.routes.choose(model.name, ask.key or entity)
        served, role, given, cached = await self._answered(champion, role, row)
        ended = time.perf_counter()
        number = f"{self._boot}-{next(self._count):x}"
        milliseconds = (ended - began) * 1000
        kept = Entry(
            number,
            time.time(),
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
        self._shadow(kept, row)
        return found

    async def predict_rows(self, name: str, rows: Rows, caller: Caller, entity: str | None = None) -> pl.DataFrame:
        """The champion's answers to checked rows (n, inputs), as `answers` gives them, with `id` and `version`; an
        experiment has no part in it. Raises Problem."""
        self.model(name)
        began, served = time.perf_counter(), self.champion(name)
        output = await asyncio.get_running_loop().run_in_executor(self.pool, served.exported.predict, rows)
        took = time.perf_counter() - began
        first = f"{self._boot}-{next(self._count):x}"
        found, kept = await self.decoders.run(
            lambda: _told_and_kept(served, rows, output, first, caller, entity, took), rows.nbytes
        )
        try:
            self.store.add_frame(name, kept)
        except Full as error:
            raise Problem(503, str(error), headers={"retry-after": "5"}) from None
        self.metrics.answered(name, served.number, "champion", took)
        return found

    def judged(self, number: str, outcome: float | str, caller: Caller) -> float:
        """Takes what came of a prediction; its loss. Raises Problem."""
        found = self.store.recent(number)
        if found is None:
            raise Problem(404, f"no prediction {number[:64]!r} among the last hundred thousand of this server")
        name, version, answered_as, output = found
        loss = loss_of(self.models[name], output, outcome)
        self.store.judged(
            Outcome(
                number,
                time.time(),
                name,
                version,
                answered_as,
                caller.name,
                str(outcome),
                loss,
            )
        )
        role: Role = answered_as  # type: ignore[assignment]
        self.routes.judged(name, role, loss)
        return loss

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

    async def _answered(self, champion: Served, role: Role, row: Rows) -> tuple[Served, Role, Answer, bool]:
        """An experiment's version that fails costs its caller nothing: the champion answers."""
        name = champion.model.name
        if role != "champion":
            experiment = self.routes.of(name)
            other = self.versions.held(name, experiment.version) if experiment else None
            if other is not None:
                try:
                    return (other, role, *(await self._timed(other, role, row)))
                except Exception as error:
                    self.routes.failed(name, role)
                    self.metrics.errors.labels(name, role).inc()
                    log.warning("%s version %d failed as %s: %s", name, other.number, role, error)
        try:
            return (champion, "champion", *(await self._timed(champion, "champion", row)))
        except Exception as error:
            self.routes.failed(name, "champion")
            self.metrics.errors.labels(name, "500").inc()
            raise Problem(
                500, f"{name} version {champion.number} failed: its card and the server's log say more"
            ) from error

    async def _timed(self, served: Served, role: Role, row: Rows) -> tuple[Answer, bool]:
        began = time.perf_counter()
        output, cached = await served.output(row)
        given = answer(served.model, served.exported.calibration, output)
        if not cached:
            self.routes.answered(served.model.name, role, (time.perf_counter() - began) * 1000)
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

    def _shadow(self, kept: Entry, row: Rows) -> None:
        experiment = self.routes.of(kept.model)
        if experiment is None or experiment.kind != "shadow":
            return
        other = self.versions.held(kept.model, experiment.version)
        if other is not None and np.random.random() < experiment.share:
            task = asyncio.create_task(self._ask_shadow(kept, row, other, other_role(experiment)))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)

    async def _ask_shadow(self, kept: Entry, row: Rows, other: Served, role: Role) -> None:
        try:
            given, cached = await self._timed(other, role, row)
            # The same id: what came of the one tells of the other.
            self.store.add(
                kept._replace(
                    version=other.number,
                    role=role,
                    answer=given,
                    output=array("d", given.output).tobytes(),
                    cached=cached,
                )
            )
        except Exception as error:
            self.routes.failed(kept.model, role)
            log.warning("%s version %d failed as shadow: %s", kept.model, other.number, error)

    def _keep(self, entry: Entry) -> None:
        try:
            self.store.add(entry)
        except Full as error:
            raise Problem(503, str(error), headers={"retry-after": "5"}) from None


def _told_and_kept(
    served: Served, rows: Rows, output: Floats, first: str, caller: Caller, entity: str | None, took: float
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Answers to rows with their ids, which begin with `first`; and the same as they are recorded."""
    model = served.model
    told = answers(model, served.exported.calibration, output).with_columns(
        pl.format(f"{first}.{{}}", pl.int_range(pl.len())).alias("id"), pl.lit(served.number).alias("version")
    )
    given = pl.from_numpy(rows, list(model.inputs)).with_columns(pl.all().fill_nan(None))
    kept = told.with_columns(
        pl.lit(datetime.now(UTC)).alias("at"),
        pl.lit("champion").alias("role"),
        pl.lit(caller.name).alias("caller"),
        pl.lit(entity, pl.String).alias("entity"),
        given.select(pl.struct(pl.all()).struct.json_encode()).to_series().alias("inputs"),
        pl.lit(took * 1000).alias("latency_ms"),
        pl.lit(False).alias("cached"),
    )
    return told, kept


def loss_of(model: Model, output: list[float], outcome: float | str) -> float:
    """What an answer missed by. Raises Problem for an outcome that the model cannot have."""
    if model.kind == "anomaly":
        raise Problem(422, f"{model.name} is judged by confirmed events: `city reference import anomaly_events`")
    if model.kind == "classification":
        if str(outcome) not in model.label.classes:
            known = ", ".join(model.label.classes)
            raise Problem(
                422, f"{model.name} has no outcome {str(outcome)[:40]!r}; known: {known}", [("outcome", known)]
            )
        of = pl.DataFrame({LABEL: [str(outcome)]})
        return float(losses(model, np.array([output]), labels(model, of))[0])
    try:
        return float(losses(model, np.array([output[0]]), np.array([float(outcome)]))[0])
    except ValueError:
        raise Problem(422, f"the outcome of {model.name} is a number", [("outcome", "give a number")]) from None
