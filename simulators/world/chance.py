"""Random numbers as functions of their position: the same seed and keys give the same number, in any order and process.

A generator with a state gives numbers that depend on all calls before. Here a number is a hash of the seed and of what
it is for (an entity, a time), so the history of a day can be computed without the days before it.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from city.arrays import Floats

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1, _MULTIPLY_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3, _TO_53_BITS = (np.uint64(bits) for bits in (30, 27, 31, 11))

Integers = NDArray[np.integer[Any]]


def bits(seed: int, purpose: str, *keys: ArrayLike) -> NDArray[np.uint64]:
    """Returns 64 random bits for each combination of integer keys, which are broadcast.

    Keys may be negative. Numbers for different purposes are independent. Source: splitmix64 (Steele, 2014).
    """
    mixed = _state(seed, purpose)
    with np.errstate(over="ignore"):
        for key in keys:
            mixed = _mix(mixed ^ (np.asarray(key).astype(np.int64).view(np.uint64) * _GOLDEN))
    return mixed


def uniform(seed: int, purpose: str, *keys: ArrayLike) -> Floats:
    """Returns numbers that are uniform in [0, 1)."""
    numbers: Floats = (bits(seed, purpose, *keys) >> _TO_53_BITS) * 2.0**-53
    return numbers


def between(low: ArrayLike, high: ArrayLike, seed: int, purpose: str, *keys: ArrayLike) -> Floats:
    """Returns numbers that are uniform in [low, high)."""
    numbers: Floats = np.asarray(low) + (np.asarray(high) - np.asarray(low)) * uniform(seed, purpose, *keys)
    return numbers


def normal(seed: int, purpose: str, *keys: ArrayLike) -> Floats:
    """Returns numbers of the standard normal distribution, by the method of Box and Muller."""
    random = bits(seed, purpose, *keys)
    radius = np.sqrt(-2.0 * np.log1p(-((random >> np.uint64(32)) * 2.0**-32)))
    numbers: Floats = radius * np.cos((2 * np.pi * 2.0**-32) * (random & np.uint64(0xFFFFFFFF)))
    return numbers


def choice(weights: ArrayLike, seed: int, purpose: str, *keys: ArrayLike) -> Integers:
    """Returns positions in `weights`, each with a probability in proportion to its weight."""
    edges = np.cumsum(np.asarray(weights, float))
    return np.searchsorted(edges / edges[-1], uniform(seed, purpose, *keys), side="right")


def smooth(seconds: ArrayLike, period: float, seed: int, purpose: str, *keys: ArrayLike) -> Floats:
    """Returns a standard normal number that changes smoothly with time, for each time and key (broadcast).

    Numbers that are more than `period` seconds apart are independent. It is interpolated between the normal numbers at
    the multiples of `period`, and scaled so that its variance is one everywhere.
    """
    position = np.asarray(seconds, float) / period
    node = np.floor(position)
    share = position - node
    share = share * share * (3 - 2 * share)
    before, after = _at_nodes(node.astype(np.int64), seed, purpose, *keys)
    numbers: Floats = ((1 - share) * before + share * after) / np.sqrt((1 - share) ** 2 + share**2)
    return numbers


def _at_nodes(node: NDArray[np.int64], seed: int, purpose: str, *keys: ArrayLike) -> tuple[Floats, Floats]:
    """Returns the normal numbers at nodes and at the next ones, for each key.

    Many moments share few nodes and keys. The numbers of those are made once, and looked up.
    """
    key = np.asarray(keys[0]).astype(np.int64) if keys else np.zeros((), np.int64)
    size = np.broadcast(node, key).size
    if size and len(keys) < 2:
        nodes, distinct = np.arange(node.min(), node.max() + 2), np.arange(key.min(), key.max() + 1)
        if len(nodes) * len(distinct) < size:
            table = normal(seed, purpose, nodes[:, None], distinct) if keys else normal(seed, purpose, nodes[:, None])
            row, column = node - nodes[0], key - distinct[0]
            return table[row, column], table[row + 1, column]
    return normal(seed, purpose, node, *keys), normal(seed, purpose, node + 1, *keys)


@lru_cache(maxsize=1_024)
def _state(seed: int, purpose: str) -> NDArray[np.uint64]:
    """Returns the bits before any key is mixed in."""
    state = np.uint64(seed & 0xFFFFFFFFFFFFFFFF) ^ np.uint64(int.from_bytes(purpose.encode()[:8].ljust(8), "big"))
    with np.errstate(over="ignore"):
        return _mix(np.asarray(state + _GOLDEN * np.uint64(len(purpose))))


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = value + _GOLDEN
    value ^= value >> _SHIFT_1
    value *= _MULTIPLY_1
    value ^= value >> _SHIFT_2
    value *= _MULTIPLY_2
    value ^= value >> _SHIFT_3
    return value
