"""What is kept in memory of the newest ids."""

from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")

MOST = 100_000


class Remembered(Generic[Value]):
    """Values of the newest ids, `most` of them. Give plain tuples: the garbage collector looks through a hundred
    thousand of anything else."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._values: OrderedDict[str, Value] = OrderedDict()

    def get(self, number: str) -> Value | None:
        return self._values.get(number)

    def put(self, number: str, value: Value) -> str | None:
        """The id that is forgotten for it, if any."""
        self._values[number] = value
        return self._values.popitem(last=False)[0] if len(self._values) > self._most else None

    def forget(self, number: str) -> None:
        self._values.pop(number, None)
