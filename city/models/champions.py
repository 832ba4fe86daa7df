"""Champions that serve: loaded from the registry, and swapped when another one is made champion, without a restart."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from city.models.exported import Exported
from city.models.model import Model, ModelError
from city.models.registry import Registry
from city.settings import Settings

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Serving:
    """A version that is loaded and warm."""

    number: int
    exported: Exported


class Champions:
    """Asks the registry every few seconds, in a thread of its own. A registry that is away, or a version that cannot
    be loaded, leaves the one that serves."""

    def __init__(self, config: Settings, models: Sequence[Model], every: float | None = None) -> None:
        self._config, self._models, self._every = config, models, every or POLL_SECONDS
        self._serving: dict[str, Serving] = {}
        self._failed: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="champions", daemon=True)
        self._registry: Registry | None = None

    def start(self) -> None:
        """Loads what there is, and watches from then on. Raises ModelError where the registry is away."""
        self._registry = Registry(self._config)
        self.refresh()
        self._thread.start()

    def of(self, model: Model) -> Serving | None:
        """The champion that serves now; None while there is none."""
        return self._serving.get(model.name)

    def refresh(self) -> None:
        """Asks once. Raises ModelError where the registry is away."""
        assert self._registry is not None
        for model in self._models:
            champion = self._registry.at(model.name)
            held = self._serving.get(model.name)
            if champion is None or (held and held.number == champion.number):
                continue
            try:
                exported = Exported(model, self._registry.content(champion))
            except Exception as error:  # a broken file, or of other inputs: the one before serves on
                if self._failed.get(model.name) != champion.number:
                    log.error("%s version %d cannot serve: %s", model.name, champion.number, error)
                self._failed[model.name] = champion.number
                continue
            self._serving[model.name] = Serving(champion.number, exported)
            log.info("%s: version %d serves", model.name, champion.number)

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _watch(self) -> None:
        away = False
        while not self._stop.wait(self._every):
            try:
                self.refresh()
                away = False
            except ModelError as error:
                if not away:
                    log.warning("%s", error)
                away = True
