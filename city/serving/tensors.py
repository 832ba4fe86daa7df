"""Requests of the Open Inference Protocol (V2), whose tensors are a model's inputs."""

import math
from typing import Any

import polars as pl
from pydantic import BaseModel, Field

from city.serving.batching import Rows
from city.serving.frame_body import MOST_ROWS
from city.serving.inputs import Inputs, Value, parse_body
from city.web.problems import Problem


class Tensor(BaseModel):  # a docstring would become a description in the OpenAPI schema
    name: str
    shape: list[int] = Field(max_length=4)
    datatype: str
    data: list[Any]


class InferRequest(BaseModel):
    """One tensor (n, inputs), or one of n values for each input."""

    inputs: list[Tensor]
    id: str | None = None


def parse_infer_rows(body: bytes, inputs: Inputs) -> tuple[str | None, Rows]:
    """Parses a request and returns its id and its rows (n, inputs). Raises Problem that names the tensor."""
    request = parse_body(InferRequest, body)
    return request.id, inputs.rows(_request_frame(inputs, request))


def _request_frame(inputs: Inputs, request: InferRequest) -> pl.DataFrame:
    columns: dict[str, list[Value]] = {}
    for number, tensor in enumerate(request.inputs):
        path = f"inputs.{number}"
        flat = _flatten(tensor.data)
        if any(size < 0 for size in tensor.shape) or len(flat) != math.prod(tensor.shape):
            raise Problem(
                422,
                f"{path}: {len(flat)} values are not of the shape {tensor.shape}",
                [(f"{path}.shape", "does not fit")],
            )
        if not all(value is None or isinstance(value, int | float) for value in flat):
            raise Problem(422, f"{path}: not only numbers", [(f"{path}.data", "give numbers, booleans or null")])
        if len(request.inputs) == 1 and len(tensor.shape) == 2 and tensor.shape[1] == len(inputs.names):
            width = len(inputs.names)
            columns = {name: flat[place::width] for place, name in enumerate(inputs.names)}
        else:
            columns[tensor.name] = flat
    if len({len(values) for values in columns.values()}) != 1 or not next(iter(columns.values())):
        raise Problem(422, "tensors of different lengths, or of none", [("inputs", "give n values for each input")])
    if (rows := len(next(iter(columns.values())))) > MOST_ROWS:
        raise Problem(413, f"{rows:,} rows: give 1 to {MOST_ROWS:,}")
    try:
        return pl.DataFrame({n: [None if v is None else float(v) for v in values] for n, values in columns.items()})
    except OverflowError:
        raise Problem(
            422, "inputs: a number is too large", [("inputs", "give numbers that a double can hold")]
        ) from None


def _flatten(data: list[Any]) -> list[Any]:
    if data and isinstance(data[0], list):
        return [value for row in data for value in _flatten(row if isinstance(row, list) else [row])]
    return data
