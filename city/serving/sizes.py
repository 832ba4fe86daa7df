"""The unpacked size of a body, and the limits of the headers that it is computed from.

The headers of every page (`city.serving.parquet_size`) and of every buffer (`city.serving.arrow_size`) are read, not
only the file's own summary, because a reader allocates memory by these headers.
"""

from dataclasses import dataclass

MOST_HEADER_BYTES = 1_000_000
"""Limit of a footer and of a message's metadata. It suffices for about 10,000 columns."""
MOST_PARTS = 50_000
"""Most pages or buffers of a body."""


class BodyFormatError(ValueError):
    """The body violates its format, or uses a part of the format that is not supported."""


@dataclass(frozen=True)
class Size:
    """The unpacked size of a body. `rows` is the largest count that any header claims. `bytes` is the size of all pages
    or buffers together with the columns made from them."""

    rows: int
    bytes: int


def check_not_negative(value: int) -> int:
    """Returns the value. Raises BodyFormatError for a negative one."""
    if value < 0:
        raise BodyFormatError("it has a negative size")
    return value
