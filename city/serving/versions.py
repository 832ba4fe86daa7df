"""Versions of models that answer: the champions, and those that an experiment sends requests to."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Executor

import numpy as np

from city.models.champions import Champions, Serving, loaded
from city.models.model import Model, ModelError
from city.models.registry import Registry
from city.serving.batching import Batcher, Rows
from city.settings import Settings

log = logging.getLogger(__name__)

_CACHED = 4_096
_KEPT = 4
"""Versions of a model: the champion, the one before, and what is tried."""


class Served:
    """A version with its batcher, and its latest answers: repeated inputs are not run again."""

    def __init__(self, model: Model, serving: Serving, pool: Executor) -> None:
        self.model, self.number, self.exported = model, serving.number, serving.exported
        self.metrics = serving.metrics
        self.batcher = Batcher(self.exported.predict, pool)
        self._answers: OrderedDict[bytes, list[float]] = OrderedDict()

    async def output(self, row: Rows) -> tuple[list[float], bool]:
        """The model's numbers for one row (1, inputs), and whether they were remembered."""
        key = row.tobytes()
        known = self._answers.get(key)
        if known is not None:
            self._answers.move_to_end(key)
            return known, True
        found: list[float] = np.ravel((await self.batcher.predict(row))[0]).tolist()
        self._answers[key] = found
        if len(self._answers) > _CACHED:
            self._answers.popitem(last=False)
        return found, False


class Versions:
    """What is loaded. A champion is swapped between two requests: those under way end on the one before."""

    def __init__(self, config: Settings, models: Mapping[str, Model], pool: Executor) -> None:
        self._config, self._pool = config, pool
        self.models = models
        self._champions = Champions(config, list(models.values()))
        self._served: dict[tuple[str, int], Served] = {}
        self.away: str | None = "it has not been read yet"

    async def start(self) -> None:
        """Loads the champions, which takes seconds, for MLflow does; goes on asking for a registry that is away.
        Until it is done /health/ready says no."""
        while True:
            try:
                await asyncio.to_thread(self._champions.start)
                self.away = None
                return
            except ModelError as error:
                self.away = str(error)
                log.warning("%s", error)
            await asyncio.sleep(2)

    def stop(self) -> None:
        self._champions.stop()

    def refresh(self) -> None:
        """Asks the registry now. Blocking."""
        self._champions.refresh()

    def champion(self, name: str) -> Served | None:
        """None while there is none. Not blocking."""
        model = self.models[name]
        serving = self._champions.of(model)
        if serving is None:
            return None
        served = self._served.get((name, serving.number))
        if served is None or served.exported is not serving.exported:
            served = self._put(Served(model, serving, self._pool))
        return served

    def champions(self) -> list[Served]:
        return [served for name in self.models if (served := self.champion(name)) is not None]

    async def version(self, name: str, number: int) -> Served:
        """Any version, loaded and warm. Raises ModelError where there is no such one."""
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
        of = [at for at in self._served if at[0] == name]
        for at in of[:-_KEPT]:
            del self._served[at]
        return served

    def held(self, name: str, number: int) -> Served | None:
        """A version that was loaded before, and is kept for being asked."""
        served = self._served.pop((name, number), None)
        if served is not None:
            self._served[name, number] = served
        return served
