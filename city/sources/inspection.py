"""Reads messages one by one, and names every reason why one cannot be read."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from city.sources.model import ROOT, Source
from city.sources.repeated_keys import RepeatedKeyError, refuse_repeats
from city.sources.rows import ITEM, MISFITS, ROW, Reasons, row_schema
from city.sources.shape import UP, Shape
from city.sources.values import Leaf, fit, follow, received

_MOST_CHARACTERS = 300


def inspect_messages(
    source: Source, shape: Shape, payloads: Sequence[bytes]
) -> tuple[pl.DataFrame, Reasons, list[int]]:
    """Reads each message alone.

    Returns the rows of the events (see `row_schema`), the reasons against messages that cannot be read, and the
    messages that do not fulfil the source's `when`.
    """
    rows: list[dict[str, Any]] = []
    refused: Reasons = {}
    others: list[int] = []
    for number, payload in enumerate(payloads):
        try:
            message = _load(source, shape, payload)
            if _fulfils_when(source, message):
                rows += [{**event, ROW: number} for event in _events(shape, message)]
            else:
                others.append(number)
        except _UnreadableError as error:
            refused[number] = [str(error)[:_MOST_CHARACTERS]]
    return pl.DataFrame(rows, schema=row_schema(shape), orient="row"), refused, others


class _UnreadableError(Exception):
    """Carries the reason against a message."""


def _load(source: Source, shape: Shape, payload: bytes) -> Any:
    def constant(word: str) -> float:
        if "nan" not in source.accepts:
            raise ValueError(f'{word} is not a JSON number. Add accepts={{"nan"}} to the source, or send null.')
        return float(word)

    try:
        return json.loads(payload.decode(), parse_constant=constant, object_pairs_hook=refuse_repeats(shape.keys))
    except UnicodeDecodeError as error:
        raise _UnreadableError(f"message: not UTF-8 at byte {error.start}") from None
    except RepeatedKeyError as error:
        raise _UnreadableError(f"message: {error}") from None
    except (ValueError, RecursionError) as error:
        raise _UnreadableError(f"message: not JSON: {error}") from None


def _fulfils_when(source: Source, message: Any) -> bool:
    for path, words in source.when.items():
        try:
            kind = fit("text", follow(message, path))
        except ValueError:
            return False
        if (kind or "") not in words:
            return False
    return True


def _events(shape: Shape, message: Any) -> Iterator[dict[str, Any]]:
    """Yields the values of each event of a message."""
    if shape.items is None:
        yield {**_values(shape.above, message), ITEM: None}
        return
    items = message if shape.items == ROOT else follow(message, shape.items)
    if not isinstance(items, list):
        place = "message" if shape.items == ROOT else shape.items
        raise _UnreadableError(f"{place}: {received(items)}; expected a list with items")
    shared = _values(shape.above, {} if shape.items == ROOT else message, UP)
    for number, item in enumerate(items):
        if isinstance(item, dict):
            values = _values(shape.inside, item)
        else:
            misfit = {"path": "", "reason": f"{received(item)}; expected an object"}
            values = dict.fromkeys(shape.inside) | {MISFITS: [misfit]}
        yield {**shared, **values, ITEM: number, MISFITS: [*shared[MISFITS], *values[MISFITS]]}


def _values(paths: Mapping[str, Leaf], message: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(message, dict):
        raise _UnreadableError(f"message: {received(message)}; expected an object")
    values: dict[str, Any] = {}
    misfits: list[dict[str, str]] = []
    for path, leaf in paths.items():
        try:
            values[prefix + path] = fit(leaf, follow(message, path))
        except ValueError as error:
            values[prefix + path] = None
            misfits.append({"path": prefix + path, "reason": str(error)})
    return {**values, MISFITS: misfits}
