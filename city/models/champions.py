"""Champions that serve: loaded from the registry, and swapped when another one is made champion, without a restart."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from city.models.exported import Exported
from city.models.model import Model
from city.models.registry import CHAMPION, Registry, RegistryAway
from city.settings import Settings

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Serving:
    """A version that is loaded and warm."""

    number: int
    exported: Exported
    metrics: Mapping[str, float] = field(default_factory=dict)
    """On held-out rows."""


def loaded(model: Model, number: int, registry: Registry) -> Serving:
    """Raises ModelError where there is no such version, or where it takes other inputs; what ONNX raises where its
    file is broken."""
    version = registry.version(model.name, number)
    exported = Exported(model, registry.content(version))
    exported.warm()
    return Serving(number, exported, version.metrics)


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
        self._stamp: int | None = None

    def start(self) -> None:
        """Loads what there is, and watches from then on. Raises RegistryAway where it is."""
        self._registry = Registry(self._config)
        self.refresh()
        self._thread.start()

    def of(self, model: Model) -> Serving | None:
        """The champion that serves now; None while there is none."""
        return self._serving.get(model.name)

    def refresh(self) -> None:
        """Asks once. Raises RegistryAway where it is."""
        assert self._registry is not None
        self._stamp = self._registry.stamp()
        aliases = self._registry.aliases()
        for model in self._models:
            number = aliases.get(model.name, {}).get(CHAMPION)
            held = self._serving.get(model.name)
            if number is None or (held and held.number == number):
                continue
            try:
                self._serving[model.name] = loaded(model, number, self._registry)
            except RegistryAway:
                raise
            except Exception as error:  # a broken file: the one before serves on
                self._cannot(model, number, error)
            else:
                log.info("%s: version %d serves", model.name, number)

    def _cannot(self, model: Model, number: int, error: Exception) -> None:
        if self._failed.get(model.name) != number:
            log.error("%s version %d cannot serve: %s", model.name, number, error)
        self._failed[model.name] = number

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _watch(self) -> None:
        away = False
        while not self._stop.wait(self._every):
            try:
                # Asking takes milliseconds, and a look at a file none.
                if self._registry is None or self._stamp is None or self._registry.stamp() != self._stamp:
                    self.refresh()
                away = False
            except RegistryAway as error:
                if not away:
                    log.warning("%s", error)
                away = True
