"""What callers ask of a model, checked once, with errors that name the field and the mend."""

import difflib
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar, cast

import numpy as np
import polars as pl
from polars import selectors as cs
from polars.exceptions import PanicException
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from city.models.model import Model
from city.serving.batching import Rows
from city.serving.sizes import Size, arrow_size, parquet_size
from city.web.problems import Problem, from_pydantic

Value = bool | float | None
MOST_INSTANCES = 10_000
MOST_ROWS = 500_000
MOST_UNPACKED_BYTES = 300_000_000
"""Of a Parquet or Arrow body and the columns made of it: twenty features of the most rows take 240 MB."""
_SLICE = 500
Body = TypeVar("Body", bound=BaseModel)
Validated = TypeVar("Validated")
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


def parsed_many(body: bytes) -> AskMany:
    """As `parsed`, some instances at a time: while pydantic validates, no other thread runs. Raises Problem."""
    try:
        content = from_json(body)
    except ValueError:
        return parsed(AskMany, body)
    asked = content.get("instances") if isinstance(content, dict) else None
    if not isinstance(asked, list) or len(asked) > MOST_INSTANCES:
        return _validated(AskMany.model_validate, content, 0)
    found = _validated(AskMany.model_validate, content | {"instances": asked[:_SLICE]}, 0)
    for begin in range(_SLICE, len(asked), _SLICE):
        found.instances += _validated(_INSTANCES.validate_python, asked[begin : begin + _SLICE], begin)
    return found


_INSTANCES = TypeAdapter(
    list[dict[str, Value] | list[Value]], config=ConfigDict(strict=True, hide_input_in_errors=True)
)


def _validated(validate: Callable[[Any], Validated], content: Any, begin: int) -> Validated:
    """Raises Problem that names the instance, of which `begin` came before."""
    try:
        return validate(content)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        if begin:
            for each in errors:
                number, *place = each["loc"]
                each["loc"] = ("instances", int(number) + begin, *place)
        raise from_pydantic(errors) from None


class Inputs:
    """A model's inputs, as what is asked is checked against. Can be pickled: another process reads large bodies."""

    def __init__(self, model: Model) -> None:
        self.model_name, self.names = model.name, model.inputs
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
                    f"{self.model_name} takes {len(self.names)} features, not {len(features)}: {', '.join(self.names)}",
                    [(at, f"give {len(self.names)} values, in this order: {', '.join(self.names)}")],
                )
            return list(features)
        try:
            values = [features[name] for name in self.names]
        except KeyError:
            missing = [name for name in self.names if name not in features]
            raise Problem(
                422,
                f"{self.model_name} needs {', '.join(missing)}",
                [(f"{at}.{name}", "is missing; give null where it is not known") for name in missing]
                + self._unknown(features, at),
            ) from None
        if len(features) != len(self.names):
            errors = self._unknown(features, at)
            raise Problem(422, f"{self.model_name} does not look at {', '.join(e[0] for e in errors)[:300]}", errors)
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


class AskedMany(NamedTuple):
    """What is asked of many rows, beside the rows."""

    model_name: str
    return_probabilities: bool


def asked_rows(body: bytes, known: Mapping[str, Inputs]) -> tuple[AskedMany, Rows]:
    """Of a JSON batch: what is asked, and its rows (n, inputs). `known` are all models' inputs, by name. Raises
    Problem that names the instance and the field."""
    asked = parsed_many(body)
    inputs = known.get(asked.model_name)
    if inputs is None:
        raise unknown_model(asked.model_name, known)
    return AskedMany(asked.model_name, asked.return_probabilities), instances(inputs, asked.instances)


def unknown_model(name: str, known: Iterable[str]) -> Problem:
    return Problem(404, f"no model {name[:60]!r}; known: {', '.join(sorted(known)) or 'none'}")


def frame_of(media: str, body: bytes) -> pl.DataFrame:
    """A Parquet or an Arrow body as a frame. Its rows and bytes are read from its headers and bounded before anything
    is unpacked. Raises Problem."""
    kind = media.partition(";")[0].strip().lower()
    if kind not in _READERS:
        raise Problem(415, f"{kind[:80]!r} is not read here: send application/json, {', '.join(_READERS)}")
    measure, read = _READERS[kind]
    try:
        size = measure(body)
        _check_size(size.rows, size.bytes)
        frame = cast(pl.DataFrame, read(io.BytesIO(body)))
    except Problem:
        raise
    except (Exception, PanicException) as error:  # the readers raise whatever they like
        raise Problem(400, f"the body is no {kind}, or none that is read here: {str(error)[:200]}") from None
    if not frame.height:
        raise Problem(413, f"0 rows: give 1 to {MOST_ROWS:,}")
    _check_size(frame.height, _text_bytes(frame))
    return frame


def _text_bytes(frame: pl.DataFrame) -> int:
    """Of all texts as the answer has them: one that stands once in a dictionary may stand in every row."""
    lengths = [column.str.len_bytes() for column in frame.select(cs.string())]
    lengths += [column.bin.size() for column in frame.select(cs.binary())]
    return sum(int(length.cast(pl.UInt64).sum()) for length in lengths)


def _check_size(rows: int, size: int) -> None:
    if rows > MOST_ROWS:
        raise Problem(413, f"{rows:,} rows: give 1 to {MOST_ROWS:,}")
    if size > MOST_UNPACKED_BYTES:
        raise Problem(
            413,
            f"{size / 1e6:,.0f} MB unpacked: give at most {MOST_UNPACKED_BYTES / 1e6:,.0f} MB, in fewer rows or "
            "columns",
        )


_READERS: Mapping[str, tuple[Callable[[bytes], Size], Callable[[io.BytesIO], Any]]] = {
    "application/vnd.apache.parquet": (parquet_size, pl.read_parquet),
    "application/vnd.apache.arrow.stream": (lambda body: arrow_size(body, is_file=False), pl.read_ipc_stream),
    "application/vnd.apache.arrow.file": (lambda body: arrow_size(body, is_file=True), pl.read_ipc),
}
