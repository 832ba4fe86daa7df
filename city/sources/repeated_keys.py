"""Detects objects of JSON in which a key that a source reads stands twice: which value counts, no standard says.

Three checks, each more exact and slower than the one before: counts of a whole chunk, counts of a message, and a parse
that sees every key.
"""

import json
import re
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any

import orjson
import polars as pl

from city.sources.shape import Node, Shape


class RepeatedKeyError(ValueError):
    """Reports a key that stands twice in an object. The message names it."""


def refuse_repeats(keys: Collection[str]) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """Returns an `object_pairs_hook` of json.loads that raises RepeatedKeyError where one of `keys` stands twice."""

    def to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            names = [name for name, _ in pairs]
            if repeated := next((name for name in names if name in keys and names.count(name) > 1), None):
                raise RepeatedKeyError(f"repeats the key {json.dumps(repeated)}; send it once")
        return content

    return to_object


def may_repeat_keys(shape: Shape, payloads: Sequence[bytes], text: bytes, frame: pl.DataFrame) -> bool:
    """Returns whether a message may repeat one of the shape's keys. False is certain.

    `text` is the joined payloads, and `frame` is what Polars read of them, of the shape's schema.
    """
    if b"\\" not in text and (counts := _key_counts(shape)) is not None:
        # Each value that was read has its own key in the text. No other key is there where the numbers are equal.
        column = pl.Series([text], dtype=pl.Binary).cast(pl.String)
        if column.str.count_matches(_pattern(shape)).item() == frame.select(pl.sum_horizontal(counts)).item():
            return False
    return not all(_has_distinct_keys(payload, shape.keys) for payload in payloads)


def _has_distinct_keys(payload: bytes, keys: frozenset[str]) -> bool:
    try:
        content = orjson.loads(payload)
        # Without a quote within a text, every quote delimits one. The content lacks those of a repeated key.
        has_inner_quotes = b'\\"' in payload or b"\\u0022" in payload
        if not has_inner_quotes and payload.count(b'"') == orjson.dumps(content).count(b'"'):
            return True
        json.loads(payload, object_pairs_hook=refuse_repeats(keys))
    except (ValueError, RecursionError):
        return False
    return True


@lru_cache(maxsize=256)
def _pattern(shape: Shape) -> str:
    return '"(?:' + "|".join(re.escape(key) for key in sorted(shape.keys)) + ')"'


@lru_cache(maxsize=256)
def _key_counts(shape: Shape) -> list[pl.Expr] | None:
    """Returns the number of values that were read for each key; None for shapes with lists."""
    counts: list[pl.Expr] = []

    def add(nodes: dict[str, Node], parent: pl.Expr | None) -> bool:
        for name, node in nodes.items():
            column = pl.col(name) if parent is None else parent.struct.field(name)
            counts.append(column.count().alias(str(len(counts))))
            if isinstance(node, list) or (isinstance(node, dict) and not add(node, column)):
                return False
        return True

    return counts if add(shape.tree, None) else None
