"""What a model is: declared once by its domain, and trained, judged, registered and watched from that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from city.arrays import Floats
from city.features.views import View, view_of
from city.models.labels import Kind, Label

if TYPE_CHECKING:
    from optuna import Trial

    from city.contracts.registry import Domain

Parameters = Mapping[str, Any]
MEASURES: dict[Kind, str] = {"regression": "mae", "classification": "log_loss", "anomaly": "surprise"}


class ModelError(ValueError):
    """A model cannot be trained, registered or promoted so. The message says what to do."""


@dataclass(frozen=True)
class Stream:
    """The topic that a model's answers are published to, and what a message says: from the view's rows with the
    answer's columns (see city.models.live) to the message's."""

    topic: str
    message: Callable[[pl.DataFrame], pl.DataFrame]
    explained: pl.Expr | None = None
    """Of which answers the rows get `contributions`: what each input has to do with it. Anomalies have them all."""


@dataclass(frozen=True)
class Model:
    """A model of a feature view. Pure: what it reads and where it is kept are others' business."""

    name: str
    means: str
    features: str
    """The feature view."""
    inputs: tuple[str, ...]
    """The view's features that it looks at; numbers and booleans."""
    label: Label
    estimator: Callable[[Parameters], Any]
    """Gives a scikit-learn estimator that takes NaN for what is missing."""
    space: Callable[["Trial"], dict[str, Any]] | None = None
    """Draws parameters for the estimator; None where there is nothing to search."""
    segments: tuple[str, ...] = ()
    """Columns of the view by whose values a new version must nowhere be worse."""
    where: str = "true"
    """An SQL condition on the view's rows: others are neither learned from nor predicted for."""
    coverage: float = 0.9
    """Of numbers: how often what comes is to be within the interval that goes with a prediction."""
    groups: tuple[str, ...] = ()
    """Columns that name what errs together (a machine), for intervals and threshold; without any each row is by
    itself."""
    threshold: Callable[[pl.DataFrame, Floats], float] | None = None
    """Of two classes: from which probability on the second is acted upon, given validation rows with their labels and
    the second's probabilities (n,)."""
    stream: Stream | None = None
    """Where its answers go at once, as events come; without it only predictions by the day are made."""
    least_rows: int = 500
    most_rows: int = 400_000
    """The newest so many are learned from."""
    history: timedelta = timedelta(days=90)
    """And none that are older than the newest by more than this."""
    trials: int = 10
    search_seconds: float = 60.0
    defaults: Parameters = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        return self.label.kind

    @property
    def measure(self) -> str:
        """The metric that versions are compared by: the mean of the losses."""
        return MEASURES[self.kind]

    @cached_property
    def view(self) -> View:
        """Found once: to find it, every domain's tables are looked through."""
        return view_of(self.features)

    @property
    def online(self) -> list[str]:
        """Its inputs, as the online store's reader names them."""
        return [f"{self.features}:{name}" for name in self.inputs]

    def check(self) -> None:
        """Raises ModelError for an input, label or segment that the view has not, or a history that is too short."""
        known = {*self.view.features, *self.view.entities}
        if unknown := sorted({*self.inputs, *self.label.uses, *self.segments} - known):
            raise ModelError(
                f"model {self.name!r}: the view {self.features!r} has no {', '.join(unknown)}; it has {sorted(known)}"
            )
        if self.history < self.label.least_span:
            raise ModelError(
                f"model {self.name!r}: its history of {self.history} is too short: what came is known up to "
                f"{self.label.wait} later, so declare at least {self.label.least_span}"
            )


def models_of(domain: "Domain") -> list[Model]:
    """What a domain's models.py declares."""
    module = domain.module("models")
    return list(getattr(module, "MODELS", ())) if module else []


def models(declared: Sequence[Model] | None = None) -> dict[str, Model]:
    """Every domain's models, by name. Raises ModelError where two have one name."""
    if declared is None:
        from city.contracts.registry import domains

        declared = [model for domain in domains() for model in models_of(domain)]
    found: dict[str, Model] = {}
    for model in declared:
        if model.name in found:
            raise ModelError(f"two models are called {model.name!r}: rename one of them")
        found[model.name] = model
    return found


def model_of(name: str) -> Model:
    """The model of that name. Raises ModelError that lists the known ones."""
    found = models()
    if name not in found:
        raise ModelError(f"no model {name!r}; known: {', '.join(sorted(found)) or 'none'}")
    return found[name]
