"""A bounded cache of the newest keys. It drops the oldest key first."""

from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")

MOST = 100_000


class FifoCache(Generic[Value]):
    """Keeps the values of the `most` newest keys. Values should be plain tuples, because the garbage collector scans a
    hundred thousand values of any other type."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._values: OrderedDict[str, Value] = OrderedDict()

    def get(self, key: str) -> Value | None:
        """Returns the value of a key, or None."""
        return self._values.get(key)

    def put(self, key: str, value: Value) -> str | None:
        """Adds a value. Returns the key that was dropped to make room for it, or None."""
        self._values[key] = value
        return self._values.popitem(last=False)[0] if len(self._values) > self._most else None

    def forget(self, key: str) -> None:
        """Removes a key, if it is there."""
        self._values.pop(key, None)
