"""A bounded cache of the newest ids, the oldest of which is dropped first."""

from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")

MOST = 100_000


class FifoCache(Generic[Value]):
    """Keeps the values of the `most` newest ids. Values should be plain tuples, because the garbage collector scans a
    hundred thousand values of any other type."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._values: OrderedDict[str, Value] = OrderedDict()

    def get(self, prediction_id: str) -> Value | None:
        """Returns the value of an id, or None."""
        return self._values.get(prediction_id)

    def put(self, prediction_id: str, value: Value) -> str | None:
        """Adds a value. Returns the id that was dropped to make room for it, or None."""
        self._values[prediction_id] = value
        return self._values.popitem(last=False)[0] if len(self._values) > self._most else None

    def forget(self, prediction_id: str) -> None:
        """Removes an id, if it is there."""
        self._values.pop(prediction_id, None)
