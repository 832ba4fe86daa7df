"""Names the item of a message in a reason, and compares reasons without it."""

import re
from collections.abc import Iterable

_ITEM = re.compile(r"^item \d+: ")


def with_item(item: int | None, reason: str) -> str:
    """Returns the reason against an item of a message, or against a message without items."""
    return reason if item is None else f"item {item}: {reason}"


def without_items(reasons: Iterable[str]) -> list[str]:
    """Returns the distinct reasons without the items that they name, sorted.

    Two fetches of a feed that has the same faults at other places have the same.
    """
    return sorted({_ITEM.sub("", reason) for reason in reasons})
