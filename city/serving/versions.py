"""Loaded versions of models: the champions, and the versions of experiments."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Executor

import numpy as np
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_fixed

from city.models.champions import Champions, Serving, loaded
from city.models.model import Model, ModelError
from city.models.registry import Registry
from city.serving.answer import Answer, answer
from city.serving.batching import Batcher, Rows
from city.settings import Settings

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 2.0
_CACHED = 4_096
_KEPT = 4
"""Number of loaded versions of a model: the champion, its predecessor, and versions of experiments."""


class Served:
    """A loaded version with its batcher and a cache of its latest outputs. A cached input is not run again."""

    def __init__(self, model: Model, serving: Serving, pool: Executor) -> None:
        self.model, self.number, self.exported = model, serving.number, serving.exported
        self.metrics = serving.metrics
        self.batcher = Batcher(self.exported.predict, pool)
        self._outputs: OrderedDict[bytes, list[float]] = OrderedDict()

    async def answer(self, row: Rows) -> tuple[Answer, bool]:
        """Answers one row (1, inputs). Returns the answer, and whether its output came from the cache. Raises what the
        model raises, and ArithmeticError for an output that is not finite."""
        key = row.tobytes()
        output = self._outputs.get(key)
        cached = output is not None
        if output is not None:
            self._outputs.move_to_end(key)
        else:
            output = np.ravel((await self.batcher.predict(row))[0]).tolist()
            self._outputs[key] = output
            if len(self._outputs) > _CACHED:
                self._outputs.popitem(last=False)
        return answer(self.model, self.exported.calibration, output), cached


class Versions:
    """The loaded versions of all models. A champion is swapped between two requests. Requests that already run end on
    the previous champion."""

    def __init__(self, config: Settings, models: Mapping[str, Model], pool: Executor) -> None:
        self._config, self._pool = config, pool
        self.models = models
        self._champions = Champions(config, list(models.values()))
        self._served: dict[tuple[str, int], Served] = {}
        self.away: str | None = "it has not been read yet"

    async def start(self) -> None:
        """Loads the champions. That takes seconds, because MLflow does. Retries while the registry is unavailable.
        Until the champions are loaded, `/health/ready` reports that the server is not ready."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(ModelError), wait=wait_fixed(_AGAIN_SECONDS), before_sleep=self._note_failure
        )
        async for attempt in attempts:
            with attempt:
                await asyncio.to_thread(self._champions.start)
        self.away = None

    def _note_failure(self, state: RetryCallState) -> None:
        assert state.outcome is not None
        self.away = str(state.outcome.exception())
        log.warning("%s", self.away)

    def stop(self) -> None:
        """Stops following the registry."""
        self._champions.stop()

    def refresh(self) -> None:
        """Reads the champions from the registry now. Blocks."""
        self._champions.refresh()

    def champion(self, name: str) -> Served | None:
        """Returns the champion of a declared model, or None while there is none. Does not block."""
        model = self.models[name]
        serving = self._champions.of(model)
        if serving is None:
            return None
        served = self._served.get((name, serving.number))
        if served is None or served.exported is not serving.exported:
            served = self._put(Served(model, serving, self._pool))
        return served

    def champions(self) -> list[Served]:
        """Returns the champions of all models that have one."""
        return [served for name in self.models if (served := self.champion(name)) is not None]

    async def version(self, name: str, number: int) -> Served:
        """Returns any version of a declared model, loaded and warm. Raises ModelError where the version does not exist
        or cannot be loaded."""
        champion = self.champion(name)
        if champion is not None and champion.number == number:
            return champion
        if (name, number) not in self._served:
            model = self.models[name]
            try:
                serving = await asyncio.to_thread(lambda: loaded(model, number, Registry(self._config)))
            except ModelError:
                raise
            except Exception as error:  # a broken file
                raise ModelError(f"{name} version {number} cannot be loaded: {error}") from error
            self._put(Served(model, serving, self._pool))
        return self._served[name, number]

    def _put(self, served: Served) -> Served:
        name = served.model.name
        self._served[name, served.number] = served
        keys = [key for key in self._served if key[0] == name]
        for key in keys[:-_KEPT]:
            del self._served[key]
        return served

    def loaded_version(self, name: str, number: int) -> Served | None:
        """Returns a version that is already loaded, or None. Marks it as the last one to be unloaded."""
        served = self._served.pop((name, number), None)
        if served is not None:
            self._served[name, number] = served
        return served
