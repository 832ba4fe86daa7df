"""What callers ask of a model, checked once, with errors that name the field and the mend."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, cast

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from city.models.model import Model
from city.serving.batching import Rows
from city.serving.problems import Problem, from_pydantic

Value = bool | float | None
MOST_INSTANCES = 10_000
MOST_ROWS = 500_000
Body = TypeVar("Body", bound=BaseModel)
_LARGEST = float(np.finfo(np.float32).max)
_STRICT = ConfigDict(extra="forbid", strict=True, protected_namespaces=(), hide_input_in_errors=True)
_Name = Annotated[str, Field(max_length=100, description="a model's name, as /models lists them")]
_FEATURES = {"speed_mean": 14.2, "speed_std": 3.1, "vehicle_count": 12, "rush_hour": True}


class Ask(BaseModel):
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


class AskMany(BaseModel):
    """Many predictions."""

    model_config = _STRICT

    model_name: _Name
    instances: list[dict[str, Value] | list[Value]] = Field(min_length=1, max_length=MOST_INSTANCES)
    return_probabilities: bool = False


class Came(BaseModel):
    """What came of a prediction."""

    model_config = _STRICT

    id: str = Field(max_length=64, description="the prediction's")
    outcome: str | float | bool = Field(description="the number or the class that came")


def parsed(kind: type[Body], body: bytes) -> Body:
    """Raises Problem."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise from_pydantic(error.errors(include_url=False, include_input=False)) from None


class Inputs:
    """A model's inputs, as what is asked is checked against."""

    def __init__(self, model: Model) -> None:
        self.model, self.names = model, model.inputs
        columns = model.view.features
        self._nullable = frozenset(name for name in model.inputs if columns[name].nullable)

    def row(self, features: Mapping[str, Value] | Sequence[Value], at: str = "features") -> Rows:
        """(1, inputs). Raises Problem that names each wrong field."""
        values = self._values(features, at)
        numbers = [math.nan if value is None else value for value in values]
        if None in values:
            self._check_missing(values, at)
        # A number that float32 cannot hold would become infinite.
        if not all(abs(number) <= _LARGEST or number != number for number in numbers):
            wrong = [n for n, value in zip(self.names, numbers, strict=True) if not abs(value) <= _LARGEST]
            raise Problem(
                422,
                f"{', '.join(wrong)}: not a finite number that a float32 can hold",
                [(f"{at}.{name}", "give a finite number, or null where it is missing") for name in wrong],
            )
        return np.array([numbers], np.float32)

    def rows(self, frame: pl.DataFrame) -> Rows:
        """(n, inputs) of a frame's columns. Raises Problem that names each wrong column."""
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
        beyond = chosen.select((pl.all().is_finite() & (pl.all().abs() <= _LARGEST)).fill_null(True).all()).row(0)
        empty = chosen.null_count().row(0)
        errors = [(n, "has values that are not finite") for n, fine in zip(self.names, beyond, strict=True) if not fine]
        errors += [
            (n, "has nulls, and may have none")
            for n, count in zip(self.names, empty, strict=True)
            if count and n not in self._nullable
        ]
        if errors:
            raise Problem(422, "; ".join(f"{name} {what}" for name, what in errors[:5]), errors)
        return chosen.select(pl.all().cast(pl.Float32).fill_null(math.nan)).to_numpy()

    def _values(self, features: Mapping[str, Value] | Sequence[Value], at: str) -> list[Value]:
        if not isinstance(features, Mapping):
            if len(features) != len(self.names):
                raise Problem(
                    422,
                    f"{self.model.name} takes {len(self.names)} features, not {len(features)}: {', '.join(self.names)}",
                    [(at, f"give {len(self.names)} values, in this order: {', '.join(self.names)}")],
                )
            return list(features)
        try:
            values = [features[name] for name in self.names]
        except KeyError:
            missing = [name for name in self.names if name not in features]
            raise Problem(
                422,
                f"{self.model.name} needs {', '.join(missing)}",
                [(f"{at}.{name}", "is missing; give null where it is not known") for name in missing]
                + self._unknown(features, at),
            ) from None
        if len(features) != len(self.names):
            errors = self._unknown(features, at)
            raise Problem(422, f"{self.model.name} does not look at {', '.join(e[0] for e in errors)[:300]}", errors)
        return values

    def _unknown(self, features: Mapping[str, Value], at: str) -> list[tuple[str, str]]:
        found = []
        for name in features:
            if name not in self.names:
                near = difflib.get_close_matches(name, self.names, 1)
                found.append((f"{at}.{name[:60]}", f"is unknown; did you mean {near[0]}?" if near else "leave it out"))
        return found[:20]

    def _check_missing(self, values: Sequence[Value], at: str) -> None:
        wrong = [
            name for name, value in zip(self.names, values, strict=True) if value is None and name not in self._nullable
        ]
        if wrong:
            raise Problem(
                422, f"{', '.join(wrong)} may not be null", [(f"{at}.{name}", "give a value") for name in wrong]
            )


def instances(inputs: Inputs, asked: Sequence[Mapping[str, Value] | Sequence[Value]]) -> Rows:
    """(n, inputs). Raises Problem that names the instance and the field."""
    return np.concatenate([inputs.row(one, f"instances.{n}") for n, one in enumerate(asked)])


def frame_of(media: str, body: bytes) -> pl.DataFrame:
    """A Parquet or an Arrow body as a frame. Raises Problem."""
    import io

    kind = media.partition(";")[0].strip().lower()
    readers: dict[str, Any] = {
        "application/vnd.apache.parquet": pl.read_parquet,
        "application/vnd.apache.arrow.stream": pl.read_ipc_stream,
        "application/vnd.apache.arrow.file": pl.read_ipc,
    }
    if kind not in readers:
        raise Problem(415, f"{kind[:80]!r} is not read here: send application/json, {', '.join(readers)}")
    try:
        frame = cast(pl.DataFrame, readers[kind](io.BytesIO(body)))
    except Exception as error:  # the readers raise whatever they like
        raise Problem(400, f"the body is no {kind}: {str(error)[:200]}") from None
    if not 0 < frame.height <= MOST_ROWS:
        raise Problem(413, f"{frame.height:,} rows: give 1 to {MOST_ROWS:,}")
    return frame
