"""Returns freed memory to the operating system."""

import ctypes
import sys
from functools import cache
from typing import Any


def release_free_memory() -> None:
    """Returns the free pages of all of glibc's heaps to the operating system. Does nothing with another C library.

    glibc itself returns only the pages at the end of a heap. In a process that lives for days, small allocations that
    stay keep the freed pages between them.
    """
    if (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
