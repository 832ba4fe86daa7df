"""Parses paths to values in a JSON message: names, places in lists, and items selected by the value of a key.

`location.coordinates.0` is the first of a list. `values[type=P1].value` is the value of the first item whose `type` is
P1. A `|` separates alternatives: the first path that has a value is read.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

_STEP = re.compile(r"(?P<name>[^.\[\]|]+)(?:\[(?P<key>[^=\[\]|]+)=(?P<value>[^\[\]|]+)\])?(?:\.|$)")


class PathError(ValueError):
    """Reports a text that is not a path. The message names it, and shows an example."""


@dataclass(frozen=True)
class Step:
    """One step of a path: to the value of a `name`, to a `place` in a list, or to the item whose `key` is `value`.

    An item's list is the value of `name`.
    """

    name: str = ""
    place: int | None = None
    key: str = ""
    value: str = ""


@lru_cache(maxsize=4_096)
def steps(path: str) -> tuple[Step, ...]:
    """Parses a path without alternatives. Raises PathError."""
    parsed: list[Step] = []
    at = 0
    while at < len(path) or not path:
        match = _STEP.match(path, at)
        if match is None or (match.end() == len(path) and path.endswith(".")):
            raise PathError(f"{path!r} is no path; paths are like data.temperature, values.0 or values[type=P1].value")
        name, key, value = match["name"], match["key"], match["value"]
        if name.isdecimal() and not key and parsed:
            parsed.append(Step(place=int(name)))
        else:
            parsed.append(Step(name, None, key or "", value or ""))
        at = match.end()
    return tuple(parsed)


def alternatives(path: str) -> tuple[str, ...]:
    """Splits a path at each `|`."""
    return tuple(path.split("|"))
