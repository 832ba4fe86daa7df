"""Request bodies of predictions, and their validation. Each request is validated once. Errors name the field and the
fix."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar, cast

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from city.models.model import Model
from city.serving.batching import Rows
from city.web.problems import Problem, from_pydantic

Value = bool | float | str | None
MOST_INSTANCES = 10_000
_SLICE = 500
Body = TypeVar("Body", bound=BaseModel)
Validated = TypeVar("Validated")
_LARGEST = float(np.finfo(np.float32).max)
_STRICT = ConfigDict(extra="forbid", strict=True, protected_namespaces=(), hide_input_in_errors=True)
_Name = Annotated[str, Field(max_length=100, description="a model's name, as /models lists them")]


class PredictionRequest(BaseModel):
    """One prediction: of features, or of an entity, whose features are read from the online store."""

    model_config = _STRICT

    model_name: _Name
    features: dict[str, Value] | list[Value] | None = Field(
        None, description="by name, or in the order of the model's inputs; null for one that is missing"
    )
    entity: dict[str, str | int] | None = Field(None, description="whom it is about, such as an H3 cell")
    return_probabilities: bool = Field(False, description="of each class; of an anomaly each input's contribution")
    explain: bool = Field(False, description="each input's share in the answer (Shapley values)")
    key: str | None = Field(None, max_length=200, description="who gets the same version each time, where two compete")


class BatchPredictionRequest(BaseModel):
    """Many predictions."""

    model_config = _STRICT

    model_name: _Name
    instances: list[dict[str, Value] | list[Value]] = Field(min_length=1, max_length=MOST_INSTANCES)
    return_probabilities: bool = False


class FeedbackRequest(BaseModel):
    """The outcome of a prediction."""

    model_config = _STRICT

    id: str = Field(max_length=64, description="the prediction's")
    outcome: str | float | bool = Field(description="the number or the class that came")


def parse_body(kind: type[Body], body: bytes) -> Body:
    """Parses and validates a JSON body. Raises Problem that names each wrong field."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise from_pydantic(error.errors(include_url=False, include_input=False)) from None


def parse_batch(body: bytes) -> BatchPredictionRequest:
    """Parses and validates the JSON body of a batch, like `parse_body`. Validates `_SLICE` instances at a time, because
    no other thread runs while pydantic validates. Raises Problem that names each wrong field."""
    try:
        content = from_json(body)
    except ValueError:
        return parse_body(BatchPredictionRequest, body)
    values = content.get("instances") if isinstance(content, dict) else None
    if not isinstance(values, list) or len(values) > MOST_INSTANCES:
        return _run_validator(BatchPredictionRequest.model_validate, content, 0)
    request = _run_validator(BatchPredictionRequest.model_validate, content | {"instances": values[:_SLICE]}, 0)
    for begin in range(_SLICE, len(values), _SLICE):
        request.instances += _run_validator(_INSTANCES.validate_python, values[begin : begin + _SLICE], begin)
    return request


_INSTANCES = TypeAdapter(
    list[dict[str, Value] | list[Value]], config=ConfigDict(strict=True, hide_input_in_errors=True)
)


def _run_validator(validate: Callable[[Any], Validated], content: Any, begin: int) -> Validated:
    """Validates `content`, whose instances follow `begin` earlier instances of the batch. Raises Problem that names the
    instance by its number in the batch."""
    try:
        return validate(content)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        if begin:
            for detail in errors:
                number, *place = detail["loc"]
                detail["loc"] = ("instances", int(number) + begin, *place)
        raise from_pydantic(errors) from None


class Inputs:
    """Validates request features against a model's input schema. It can be pickled, because another process reads large
    bodies."""

    def __init__(self, model: Model) -> None:
        self.model_name, self.names = model.name, model.inputs
        columns = model.view.features
        self._nullable = frozenset(name for name in model.inputs if columns[name].nullable)
        given = {*(f.name for f in model.event.contract.fields), *model.event.unused} if model.event else set()
        self._of_events = frozenset(given.difference(model.inputs))

    def is_event(self, features: Mapping[str, Value] | Sequence[Value]) -> bool:
        """Whether an instance is an event as it happens, and not the model's features."""
        return bool(self._of_events) and isinstance(features, Mapping) and not self._of_events.isdisjoint(features)

    def row(self, features: Mapping[str, Value] | Sequence[Value], path: str = "features") -> Rows:
        """Validates the features of one instance and returns them as float32 of shape (1, inputs), with NaN for null.
        `path` is that of the features in the body, which errors name. Raises Problem that names each wrong field."""
        values = self._ordered_values(features, path)
        if None in values:
            self._check_missing(values, path)
        if str in map(type, values):
            self._refuse_texts(values, path)
        numbers = [math.nan if value is None else cast(float, value) for value in values]
        # A number beyond the range of float32 would become infinite.
        if not all(abs(number) <= _LARGEST or number != number for number in numbers):
            wrong = [n for n, value in zip(self.names, numbers, strict=True) if not abs(value) <= _LARGEST]
            raise Problem(
                422,
                f"{', '.join(wrong)}: not a finite number that a float32 can hold",
                [(f"{path}.{name}", "give a finite number, or null where it is missing") for name in wrong],
            )
        return np.array([numbers], np.float32)

    def rows(self, frame: pl.DataFrame) -> Rows:
        """Validates a frame's columns and returns the inputs as float32 of shape (n, inputs), with NaN for null. Raises
        Problem that names each wrong column."""
        missing = [name for name in self.names if name not in frame.columns]
        if missing:
            raise Problem(
                422, f"missing columns: {', '.join(missing)}", [(name, "this column is needed") for name in missing]
            )
        wrong = [
            n for n in self.names if not (frame.schema[n].is_numeric() or frame.schema[n] in (pl.Boolean, pl.Null))
        ]
        if wrong:
            raise Problem(
                422,
                f"columns that are no numbers: {', '.join(wrong)}",
                [(n, f"is {frame.schema[n]}: give numbers or booleans") for n in wrong],
            )
        chosen = frame.select(pl.col(self.names).cast(pl.Float64, strict=False))
        finite = chosen.select((pl.all().is_finite() & (pl.all().abs() <= _LARGEST)).fill_null(True).all()).row(0)
        nulls = chosen.null_count().row(0)
        errors = [(n, "has values that are not finite") for n, fine in zip(self.names, finite, strict=True) if not fine]
        errors += [
            (n, "has nulls, and may have none")
            for n, count in zip(self.names, nulls, strict=True)
            if count and n not in self._nullable
        ]
        if errors:
            raise Problem(422, "; ".join(f"{name} {what}" for name, what in errors[:5]), errors)
        return chosen.select(pl.all().cast(pl.Float32).fill_null(math.nan)).to_numpy()

    def _ordered_values(self, features: Mapping[str, Value] | Sequence[Value], path: str) -> list[Value]:
        """Returns the features in the order of the inputs. Raises Problem for missing and unknown features."""
        if not isinstance(features, Mapping):
            if len(features) != len(self.names):
                raise Problem(
                    422,
                    f"{self.model_name} takes {len(self.names)} features, not {len(features)}: {', '.join(self.names)}",
                    [(path, f"give {len(self.names)} values, in this order: {', '.join(self.names)}")],
                )
            return list(features)
        try:
            values = [features[name] for name in self.names]
        except KeyError:
            missing = [name for name in self.names if name not in features]
            raise Problem(
                422,
                f"{self.model_name} needs {', '.join(missing)}",
                [(f"{path}.{name}", "is missing; give null where it is not known") for name in missing]
                + self._unknown_fields(features, path),
            ) from None
        if len(features) != len(self.names):
            errors = self._unknown_fields(features, path)
            raise Problem(422, f"{self.model_name} does not look at {', '.join(e[0] for e in errors)[:300]}", errors)
        return values

    def _unknown_fields(self, features: Mapping[str, Value], path: str) -> list[tuple[str, str]]:
        """Returns path and advice for each feature that the model does not use, at most 20."""
        errors = []
        for name in features:
            if name not in self.names:
                near = difflib.get_close_matches(name, self.names, 1)
                advice = f"is unknown; did you mean {near[0]}?" if near else "leave it out"
                errors.append((f"{path}.{name[:60]}", advice))
        return errors[:20]

    def _refuse_texts(self, values: Sequence[Value], path: str) -> None:
        texts = [name for name, value in zip(self.names, values, strict=True) if isinstance(value, str)]
        raise Problem(422, f"{', '.join(texts)}: not a number", [(f"{path}.{name}", "give a number") for name in texts])

    def _check_missing(self, values: Sequence[Value], path: str) -> None:
        wrong = [
            name for name, value in zip(self.names, values, strict=True) if value is None and name not in self._nullable
        ]
        if wrong:
            raise Problem(
                422, f"{', '.join(wrong)} may not be null", [(f"{path}.{name}", "give a value") for name in wrong]
            )


def instance_rows(
    inputs: Inputs, instances: Sequence[Mapping[str, Value] | Sequence[Value]]
) -> Rows | list[Mapping[str, Value]]:
    """Validates the instances of a batch and returns them as float32 of shape (n, inputs); as they are where all are
    events. Raises Problem that names the instance and the field."""
    events = [instance for instance in instances if isinstance(instance, Mapping) and inputs.is_event(instance)]
    if len(events) == len(instances):
        return events
    return np.concatenate([inputs.row(instance, f"instances.{n}") for n, instance in enumerate(instances)])


class BatchOptions(NamedTuple):
    """The fields of a BatchPredictionRequest other than its rows."""

    model_name: str
    return_probabilities: bool


def parse_batch_rows(
    body: bytes, model_inputs: Mapping[str, Inputs]
) -> tuple[BatchOptions, Rows | list[Mapping[str, Value]]]:
    """Parses a JSON batch and returns its options, and its rows (n, inputs) or its events. `model_inputs` are the
    inputs of all models by name. Raises Problem that names the instance and the field."""
    request = parse_batch(body)
    inputs = model_inputs.get(request.model_name)
    if inputs is None:
        raise unknown_model(request.model_name, model_inputs)
    return BatchOptions(request.model_name, request.return_probabilities), instance_rows(inputs, request.instances)


def unknown_model(name: str, models: Iterable[str]) -> Problem:
    """Returns the 404 for a model that is not declared. It lists the names of `models`."""
    return Problem(404, f"no model {name[:60]!r}; known: {', '.join(sorted(models)) or 'none'}")
