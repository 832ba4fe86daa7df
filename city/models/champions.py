"""Loads the champions that serve from the registry.

When another version becomes the champion, it replaces the loaded one without a restart.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from city.models.exported import Exported
from city.models.model import Model
from city.models.registry import CHAMPION, Registry, RegistryAway
from city.settings import Settings
from city.stack.worker import Worker

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Serving:
    """A version that is loaded and warm."""

    number: int
    """The version's number in the registry."""
    exported: Exported
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The version's metrics on held-out rows."""


def loaded(model: Model, number: int, registry: Registry) -> Serving:
    """Loads a version and warms it up.

    Raises ModelError where there is no such version, or where it takes other inputs. Raises an error of ONNX where its
    file is broken.
    """
    version = registry.version(model.name, number)
    exported = Exported(model, registry.content(version))
    exported.warm()
    return Serving(number, exported, version.metrics)


class Champions:
    """The champions that serve. A worker polls the registry every few seconds.

    Where the registry is not reachable, or a version cannot be loaded, the version that serves stays.
    """

    def __init__(self, config: Settings, models: Sequence[Model], every: float | None = None) -> None:
        self._config, self._models, self._every = config, models, every or POLL_SECONDS
        self._serving: dict[str, Serving] = {}
        self._failed: dict[str, int] = {}
        self.worker = Worker("champions", self._poll_registry)
        self._registry: Registry | None = None
        self._stamp: int | None = None

    def start(self) -> None:
        """Loads the champions and starts the worker. Raises RegistryAway where the registry is not reachable."""
        # Imported even if there is no champion yet: a missing package shows when the process starts, not an hour later.
        import onnxruntime  # noqa: F401

        self._registry = Registry(self._config)
        self.refresh()
        self.worker.start()

    def champion(self, model: Model) -> Serving | None:
        """Returns the model's champion that serves now. Returns None while there is none."""
        return self._serving.get(model.name)

    def refresh(self) -> None:
        """Reads the registry once, and loads new champions. Raises RegistryAway where it is not reachable."""
        assert self._registry is not None
        self._stamp = self._registry.stamp()
        aliases = self._registry.aliases()
        for model in self._models:
            number = aliases.get(model.name, {}).get(CHAMPION)
            current = self._serving.get(model.name)
            if number is None or (current and current.number == number):
                self._failed.pop(model.name, None)
                continue
            try:
                self._serving[model.name] = loaded(model, number, self._registry)
            except RegistryAway:
                raise
            except Exception as error:  # a broken file: the version before it continues to serve
                self._note_failure(model, number, error)
            else:
                self._failed.pop(model.name, None)
                log.info("%s: version %d serves", model.name, number)

    def _note_failure(self, model: Model, number: int, error: Exception) -> None:
        """Logs once that a version cannot serve."""
        if self._failed.get(model.name) != number:
            log.error("%s version %d cannot serve: %s", model.name, number, error)
        self._failed[model.name] = number

    def stop(self) -> None:
        """Stops the worker, and waits up to five seconds for it."""
        self.worker.stop(5)

    def _poll_registry(self, worker: Worker) -> None:
        while not worker.stop_requested.wait(self._every):
            error = None
            try:
                # A query takes milliseconds. Reading the file's stamp takes almost no time.
                if self._registry is None or self._stamp is None or self._registry.stamp() != self._stamp:
                    self.refresh()
            except RegistryAway as away:
                error = str(away)
            broken = "; ".join(f"{name} version {number} cannot serve" for name, number in self._failed.items())
            if error and worker.last_error != error:
                log.warning("%s", error)
            worker.note(error or broken or None)
            worker.progress()
