"""The declaration of a model.

A domain declares a model once. It is trained, judged, registered and monitored from the declaration.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from city.arrays import Floats
from city.features.views import View, view_of
from city.models.estimator import Estimator
from city.models.labels import Kind, Label
from city.models.raw_event import RawEvent

if TYPE_CHECKING:
    from optuna import Trial

    from city.contracts.registry import Domain

Parameters = Mapping[str, Any]
"""The keyword arguments of an estimator: each has the type that the estimator gives it."""
MEASURES: dict[Kind, str] = {"regression": "mae", "classification": "log_loss", "anomaly": "surprise"}


class ModelError(ValueError):
    """Reports that a model cannot be trained, registered or promoted. The message says what to do."""


@dataclass(frozen=True)
class Stream:
    """The topic that a model's answers are published to, and the content of a message.

    `message` maps the view's rows with the answer's columns (see city.streaming.sinks.scores) to those of the message.
    """

    topic: str
    message: Callable[[pl.DataFrame], pl.DataFrame]
    explained: pl.Expr | None = None
    """The condition of the answers that get `contributions`, the share of each input. All anomaly answers have them."""


@dataclass(frozen=True)
class Model:
    """A model of a feature view. It is pure: other modules read its data and store its versions."""

    name: str
    description: str
    features: str
    """The name of the feature view."""
    inputs: tuple[str, ...]
    """The view's features that the model uses. They are numbers and booleans."""
    label: Label
    estimator: Callable[[Parameters], Estimator]
    """Creates a scikit-learn estimator from parameters. It must accept NaN for missing values."""
    space: Callable[["Trial"], Parameters] | None = None
    """Draws parameters for the estimator. None where there is nothing to search."""
    change_of: str = ""
    """The input whose change is learned, for a regression of its later value. Empty: the value itself is learned."""
    segments: tuple[str, ...] = ()
    """Columns of the view. A new version must not be worse for any of their values."""
    where: str = "true"
    """An SQL condition on the view's rows. Other rows are neither learned from nor predicted for."""
    coverage: float = 0.9
    """For a regression: the share of outcomes that the intervals of predictions must contain."""
    groups: tuple[str, ...] = ()
    """Columns that name a unit whose errors are correlated (a machine). Intervals and threshold are then set on
    predictions by estimators that were fitted on other units."""
    threshold: Callable[[pl.DataFrame, Floats], float] | None = None
    """For two classes: computes the probability from which on the second class is predicted. It takes validation rows
    with their labels, and the second class's probabilities (n,)."""
    is_calibrated: bool = False
    """For two classes: whether probabilities are made frequencies, by a curve over predictions for validation rows, or
    for units that the estimator had not seen where the model has `groups`."""
    threshold_by: str = ""
    """The column of the view by whose values the threshold differs, where that is surely cheaper."""
    threshold_cost: Callable[[pl.DataFrame, NDArray[np.bool_]], Floats] | None = None
    """For `threshold_by`: computes the cost of each row (n,), in any unit. It takes rows with their labels, and whether
    the second class is predicted (n,)."""
    stream: Stream | None = None
    """Where the answers to events are published at once. Without it, there are only daily predictions."""
    least_rows: int = 500
    """The number of rows with an outcome that a training needs."""
    most_rows: int = 400_000
    """The number of newest rows, of those that meet `where`, that are learned from."""
    first_rows: int = 150_000
    """The number of newest rows that the first version learns from. All first versions of a new city are trained one
    after the other, beside the stream."""
    history: timedelta = timedelta(days=90)
    """Rows that are older than the newest by more than this are not learned from."""
    trials: int = 10
    """The most sets of parameters that a search tries."""
    search_seconds: float = 60.0
    """The time after which a search tries no further parameters."""
    defaults: Parameters = field(default_factory=dict)
    event: RawEvent | None = None
    """The events that a request may give in place of features. Only for a view of events."""
    aliases: tuple[str, ...] = ()
    """Further names by which requests may call the model."""
    own_view: View | None = None
    """The feature view, where no domain declares it: a benchmark's, of a public data set."""

    @property
    def kind(self) -> Kind:
        """The kind of the label."""
        return self.label.kind

    @property
    def measure(self) -> str:
        """The metric by which versions are compared: the mean of the losses."""
        return MEASURES[self.kind]

    @cached_property
    def view(self) -> View:
        """The feature view. It is cached, because every domain's tables are searched for it."""
        return self.own_view or view_of(self.features)

    @cached_property
    def answer_columns(self) -> tuple[str, ...]:
        """The columns of the view that an answer needs: the inputs, and `threshold_by`."""
        return tuple(dict.fromkeys((*self.inputs, *filter(None, [self.threshold_by]))))

    @property
    def online(self) -> list[str]:
        """The columns that an answer needs, as the reader of the online store names them."""
        return [f"{self.features}:{name}" for name in self.answer_columns]

    def check(self) -> None:
        """Raises ModelError for an input, label or segment that the view lacks, or for a history that is too short."""
        columns = {*self.view.features, *self.view.entities}
        needed = {*self.inputs, *self.label.source_features, *self.segments, *filter(None, [self.threshold_by])}
        if unknown := sorted(needed - columns):
            raise ModelError(
                f"model {self.name!r}: the view {self.features!r} has no {', '.join(unknown)}; it has {sorted(columns)}"
            )
        if self.event is not None and self.view.events(self.event.contract) is None:
            raise ModelError(
                f"model {self.name!r}: the view {self.features!r} is not made from the events of "
                f"{self.event.contract.name}, so a request cannot give one"
            )
        if self.history < self.label.least_span:
            raise ModelError(
                f"model {self.name!r}: its history of {self.history} is too short: labels are known up to "
                f"{self.label.wait} after their rows, so declare at least {self.label.least_span}"
            )


def models_of(domain: "Domain") -> list[Model]:
    """Lists the models that a domain's models.py declares."""
    module = domain.module("models")
    return list(getattr(module, "MODELS", ())) if module else []


def models(declared: Sequence[Model] | None = None) -> dict[str, Model]:
    """Returns every domain's models (or those that are `declared`), by name.

    Raises ModelError where two models have the same name.
    """
    if declared is None:
        from city.contracts.registry import domains

        declared = [model for domain in domains() for model in models_of(domain)]
    by_name: dict[str, Model] = {}
    names: set[str] = set()
    for model in declared:
        for name in (model.name, *model.aliases):
            if name in names:
                raise ModelError(f"two models are called {name!r}: rename one of them")
            names.add(name)
        by_name[model.name] = model
    return by_name


def model_of(name: str) -> Model:
    """Returns the model of that name. Raises ModelError that lists the known models."""
    by_name = models()
    if name not in by_name:
        raise ModelError(f"no model {name!r}; known: {', '.join(sorted(by_name)) or 'none'}")
    return by_name[name]
