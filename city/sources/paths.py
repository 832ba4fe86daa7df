"""Paths to values in a JSON message: names, places in lists, and items of lists that are found by what they say.

`location.coordinates.0` is the first of a list. `values[type=P1].value` is the value of the first item whose `type` is
P1. A `|` separates paths of which the first that has a value counts.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

_STEP = re.compile(r"(?P<name>[^.\[\]|]+)(?:\[(?P<key>[^=\[\]|]+)=(?P<value>[^\[\]|]+)\])?(?:\.|$)")


class PathError(ValueError):
    """Reports what is no path. The message names it, and shows one."""


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
    found: list[Step] = []
    at = 0
    while at < len(path) or not path:
        match = _STEP.match(path, at)
        if match is None or (match.end() == len(path) and path.endswith(".")):
            raise PathError(f"{path!r} is no path; paths are like data.temperature, values.0 or values[type=P1].value")
        name, key, value = match["name"], match["key"], match["value"]
        if name.isdecimal() and not key and found:
            found.append(Step(place=int(name)))
        else:
            found.append(Step(name, None, key or "", value or ""))
        at = match.end()
    return tuple(found)


def alternatives(path: str) -> tuple[str, ...]:
    """Returns the paths that a `|` separates."""
    return tuple(path.split("|"))
