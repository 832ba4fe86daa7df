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
from city.serving.answer import Answer, interpret_output
from city.serving.batching import Batcher, Rows
from city.settings import Settings

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 2.0
_CACHED = 4_096
_KEPT = 4
"""Number of loaded versions of a model: the champion, its predecessor, and versions of experiments."""


class LoadedVersion:
    """A loaded version with its batcher and a cache of its latest outputs. A cached input is not run again."""

    def __init__(self, model: Model, serving: Serving, pool: Executor) -> None:
        self.model, self.number, self.exported = model, serving.number, serving.exported
        self.metrics = serving.metrics
        self.batcher = Batcher(self.exported.predict, pool)
        self._outputs: OrderedDict[bytes, list[float]] = OrderedDict()

    async def answer(self, row: Rows, category: str | None = None) -> tuple[Answer, bool]:
        """Answers one row (1, inputs). `category` is its value of the model's `threshold_by`. Returns the answer, and
        whether its output came from the cache. Raises what the model raises, and ArithmeticError for an output that is
        not finite."""
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
        return interpret_output(self.model, self.exported.calibration, output, category), cached


class Versions:
    """The loaded versions of all models. A champion is swapped between two requests. Requests that already run end on
    the previous champion."""

    def __init__(self, config: Settings, models: Mapping[str, Model], pool: Executor) -> None:
        self._config, self._pool = config, pool
        self.models = models
        self._champions = Champions(config, list(models.values()))
        self._loaded: dict[tuple[str, int], LoadedVersion] = {}
        self.registry_error: str | None = "it has not been read yet"
        """Why the registry cannot be read, or None."""

    async def start(self) -> None:
        """Loads the champions. That takes seconds, because MLflow does. Retries while the registry is unavailable.
        Until the champions are loaded, `/health/ready` reports that the server is not ready."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(ModelError), wait=wait_fixed(_AGAIN_SECONDS), before_sleep=self._note_failure
        )
        async for attempt in attempts:
            with attempt:
                await asyncio.to_thread(self._champions.start)
        self.registry_error = None

    def _note_failure(self, state: RetryCallState) -> None:
        assert state.outcome is not None
        self.registry_error = str(state.outcome.exception())
        log.warning("%s", self.registry_error)

    def stop(self) -> None:
        """Stops following the registry."""
        self._champions.stop()

    def refresh(self) -> None:
        """Reads the champions from the registry now. Blocks."""
        self._champions.refresh()

    def champion(self, name: str) -> LoadedVersion | None:
        """Returns the champion of a declared model, or None while there is none. Does not block."""
        model = self.models[name]
        serving = self._champions.champion(model)
        if serving is None:
            return None
        version = self._loaded.get((name, serving.number))
        if version is None or version.exported is not serving.exported:
            version = self._put(LoadedVersion(model, serving, self._pool))
        return version

    def champions(self) -> list[LoadedVersion]:
        """Returns the champions of all models that have one."""
        return [champion for name in self.models if (champion := self.champion(name)) is not None]

    async def version(self, name: str, number: int) -> LoadedVersion:
        """Returns any version of a declared model, loaded and warm. Raises ModelError where the version does not exist
        or cannot be loaded."""
        champion = self.champion(name)
        if champion is not None and champion.number == number:
            return champion
        if (name, number) not in self._loaded:
            model = self.models[name]
            try:
                serving = await asyncio.to_thread(lambda: loaded(model, number, Registry(self._config)))
            except ModelError:
                raise
            except Exception as error:  # a broken file
                raise ModelError(f"{name} version {number} cannot be loaded: {error}") from error
            self._put(LoadedVersion(model, serving, self._pool))
        return self._loaded[name, number]

    def _put(self, version: LoadedVersion) -> LoadedVersion:
        name = version.model.name
        self._loaded[name, version.number] = version
        keys = [key for key in self._loaded if key[0] == name]
        for key in keys[:-_KEPT]:
            del self._loaded[key]
        return version

    def loaded_version(self, name: str, number: int) -> LoadedVersion | None:
        """Returns a version that is already loaded, or None. Marks it as the last one to be unloaded."""
        version = self._loaded.pop((name, number), None)
        if version is not None:
            self._loaded[name, number] = version
        return version
