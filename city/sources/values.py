"""Reads values of JSON: at a path, as the type of a path, with the form received where it is another."""

import json
from typing import Any, Literal

from city.sources.paths import steps

Leaf = Literal["number", "boolean", "text"]
"""The type of the value at a path."""


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
    if leaf == "text" and not isinstance(value, dict | list):
        return value if isinstance(value, str) else json.dumps(value)
    if leaf == "boolean" and isinstance(value, bool):
        return value
    if leaf == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"a number of {len(str(value)):,} digits, too large") from None
    shown = f" {json.dumps(value)[:40]}" if not isinstance(value, dict | list) else ""
    raise ValueError(f"{kind_of(value)}{shown}, not a {leaf}")


def kind_of(value: Any) -> str:
    """Names the kind of a value of JSON."""
    if value is None:
        return "nothing"
    kinds: dict[type, str] = {str: "a text", bool: "a boolean", int: "a number", float: "a number", list: "a list"}
    return kinds.get(type(value), "an object")
