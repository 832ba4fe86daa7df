"""What a model is: declared once by its domain, and trained, judged, registered and watched from that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from city.arrays import Floats
from city.features.views import View, view_of

if TYPE_CHECKING:
    from optuna import Trial

    from city.contracts.registry import Domain

Parameters = Mapping[str, Any]


class ModelError(ValueError):
    """A model cannot be trained, registered or promoted so. The message says what to do."""


@dataclass(frozen=True)
class Label:
    """What is predicted: a feature of the same entity, some time later."""

    column: str
    ahead: timedelta
    tolerance: timedelta
    """How far from that time the row may be that tells."""
    classes: tuple[str, ...] = ()
    """For classification, in their order; `of` gives one of them."""
    of: Callable[[pl.Expr], pl.Expr] = lambda value: value
    """The label, from the column's later value."""
    unit: str = ""

    def named(self, probabilities: Floats) -> list[str]:
        """The likeliest class of each row (n, classes)."""
        return [self.classes[n] for n in probabilities.argmax(1)]


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
    naive: Callable[[pl.Expr], pl.Expr] | None = None
    """What one would say without a model, from the label's column as it is now; default: that it stays."""
    space: Callable[["Trial"], dict[str, Any]] | None = None
    """Draws parameters for the estimator; None where there is nothing to search."""
    segments: tuple[str, ...] = ()
    """Columns of the view by whose values a new version must nowhere be worse."""
    least_rows: int = 500
    trials: int = 10
    search_seconds: float = 60.0
    defaults: Parameters = field(default_factory=dict)

    @property
    def kind(self) -> Literal["classification", "regression"]:
        return "classification" if self.label.classes else "regression"

    @property
    def measure(self) -> str:
        """The metric that versions are compared by: the mean of the losses."""
        return "mae" if self.kind == "regression" else "log_loss"

    @property
    def view(self) -> View:
        return view_of(self.features)

    def check(self) -> None:
        """Raises ModelError for an input, label or segment that the view has not."""
        known = {*self.view.features, *self.view.entities}
        if unknown := sorted({*self.inputs, self.label.column, *self.segments} - known):
            raise ModelError(
                f"model {self.name!r}: the view {self.features!r} has no {', '.join(unknown)}; it has {sorted(known)}"
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
