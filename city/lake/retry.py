"""Commits changes to tables that other processes write to, and retries them after a conflict."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

_ATTEMPTS = 10


def committed(path: Path | str, change: Callable[[DeltaTable], Any]) -> Any:
    """Calls `change` with the newest state of the table and returns its result. Retries it after a conflicting commit.

    Raises CommitFailedError after ten attempts.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return change(DeltaTable(path))
        except CommitFailedError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0.05, 0.2) * 2 ** min(attempt, 5))
    raise AssertionError("unreachable")
