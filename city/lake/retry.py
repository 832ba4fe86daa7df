"""Commits changes to tables that other processes write to, and retries them after a conflict."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random_exponential

from city.lake.location import Location

Result = TypeVar("Result")


@retry(
    retry=retry_if_exception_type(CommitFailedError),
    # At least a quarter of the longest wait: the ten attempts last eight seconds or more.
    wait=wait_exponential(multiplier=0.05, max=1.6) + wait_random_exponential(multiplier=0.15, max=4.8),
    stop=stop_after_attempt(10),
    reraise=True,
)
def commit_with_retry(place: Path | str | Location, change: Callable[[DeltaTable], Result]) -> Result:
    """Calls `change` with the newest state of the table and returns its result. Retries it after a conflicting commit.

    Raises CommitFailedError after ten attempts.
    """
    return change(Location.of(place).open())
