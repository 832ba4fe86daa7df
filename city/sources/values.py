"""Reads values of JSON: at a path, as the type of a path, with the form received where it is another."""

import json
import math
from decimal import Decimal
from typing import Any, Literal

from city.sources.paths import steps

Leaf = Literal["number", "integer", "boolean", "text"]
"""The type of the value at a path."""
_INT64 = range(-(2**63), 2**63)
_MOST_CHARACTERS = 60


def follow(message: Any, path: str) -> Any:
    """Returns the value at a path of a message; None where there is none."""
    for step in steps(path):
        if step.place is not None:
            message = message[step.place] if isinstance(message, list) and step.place < len(message) else None
            continue
        message = message.get(step.name) if isinstance(message, dict) else None
        if step.key:
            items = message if isinstance(message, list) else []
            message = next((item for item in items if follow(item, step.key) == step.value), None)
    return message


def fit(leaf: Leaf, value: Any) -> Any:
    """Returns a value of JSON as the type of a path. Raises ValueError with the form received and the expected one."""
    if value is None:
        return None
    if leaf == "text":
        return _as_text(value)
    if leaf == "boolean":
        if isinstance(value, bool):
            return value
        raise ValueError(f"{received(value)}; expected true or false")
    if isinstance(value, bool) or not isinstance(value, int | float):
        hint = '. Add accepts={"text"} to the source, or send a number.' if _is_number(value) else ""
        raise ValueError(f"{received(value)}; expected a JSON number{hint}")
    return _as_integer(value) if leaf == "integer" else _as_float(value)


def _as_text(value: Any) -> str:
    """Returns a text, or a number or boolean as Polars writes it: without an exponent, and 1.0 as 1."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("got a text with half of a surrogate pair; expected a text")
        return value
    if isinstance(value, dict | list):
        raise ValueError(f"{received(value)}; expected a text")
    if isinstance(value, float) and math.isfinite(value):
        digits = format(Decimal(repr(value)), "f")
        return digits.rstrip("0").rstrip(".") if "." in digits else digits
    return json.dumps(value)


def _as_float(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"got a number of {len(str(value)):,} digits; expected a finite number") from None
    if not math.isfinite(number):
        raise ValueError(f"{received(number)}; expected a finite number")
    return number


def _as_integer(value: float) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{received(value)}; expected a whole number")
    if int(value) not in _INT64:
        raise ValueError(f"{received(value)}; expected a whole number of 64 bits")
    return int(value)


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def received(value: Any) -> str:
    """Names a value of JSON, and its kind."""
    if value is None:
        return "got nothing"
    if isinstance(value, dict | list):
        return f"got {'an object' if isinstance(value, dict) else 'a list'}"
    kind = {str: "text", bool: "boolean"}.get(type(value), "number")
    text = json.dumps(value, ensure_ascii=False)[:_MOST_CHARACTERS]
    return f"got {text.encode(errors='replace').decode()} ({kind})"
