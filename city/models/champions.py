"""Champions that serve: loaded from the registry, and swapped when another one is made champion, without a restart."""

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
    """Asks the registry every few seconds, in a worker. A registry that is away, or a version that cannot
    be loaded, leaves the one that serves."""

    def __init__(self, config: Settings, models: Sequence[Model], every: float | None = None) -> None:
        self._config, self._models, self._every = config, models, every or POLL_SECONDS
        self._serving: dict[str, Serving] = {}
        self._failed: dict[str, int] = {}
        self.worker = Worker("champions", self._watch)
        self._registry: Registry | None = None
        self._stamp: int | None = None

    def start(self) -> None:
        """Loads what there is, and watches from then on. Raises RegistryAway where it is."""
        # Now, also where there is no champion yet: what a process needs is seen when it starts, not an hour later.
        import onnxruntime  # noqa: F401

        self._registry = Registry(self._config)
        self.refresh()
        self.worker.start()

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
                self._failed.pop(model.name, None)
                continue
            try:
                self._serving[model.name] = loaded(model, number, self._registry)
            except RegistryAway:
                raise
            except Exception as error:  # a broken file: the one before serves on
                self._cannot(model, number, error)
            else:
                self._failed.pop(model.name, None)
                log.info("%s: version %d serves", model.name, number)

    def _cannot(self, model: Model, number: int, error: Exception) -> None:
        if self._failed.get(model.name) != number:
            log.error("%s version %d cannot serve: %s", model.name, number, error)
        self._failed[model.name] = number

    def stop(self) -> None:
        self.worker.stop(5)

    def _watch(self, worker: Worker) -> None:
        while not worker.stop_requested.wait(self._every):
            error = None
            try:
                # Asking takes milliseconds, and a look at a file none.
                if self._registry is None or self._stamp is None or self._registry.stamp() != self._stamp:
                    self.refresh()
            except RegistryAway as away:
                error = str(away)
            broken = "; ".join(f"{name} version {number} cannot serve" for name, number in self._failed.items())
            if error and worker.last_error != error:
                log.warning("%s", error)
            worker.note(error or broken or None)
            worker.progress()
