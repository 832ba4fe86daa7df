"""The result of a build of a table."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class BuildResult:
    """The result of a build."""

    rows: int
    """The number of rows that the built days have now."""
    days: int
    """The number of local days; 0 for a snapshot table."""
    seconds: float
    """The duration of the build."""
    hours: int | None = None
    """The number of hours that had new events and were built; None where all hours were built."""
    sources: Mapping[str, int] = field(default_factory=dict)
    """The Delta version at which each source was read."""
