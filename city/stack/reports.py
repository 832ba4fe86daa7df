"""The types of the reports that processes write to <home>/run, and of the status that is made of them.

They are dictionaries because they are read from JSON and shown as JSON.
"""

from typing import Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

GrownDays = dict[str, dict[str, float]]
"""By the table (bronze or quarantine) and the local day: when the day got rows last, in seconds since the epoch."""
_DESCRIBED = ConfigDict(use_attribute_docstrings=True)


@with_config(_DESCRIBED)
class WorkerSummary(TypedDict):
    """The state of a background loop. Times are in seconds since the epoch."""

    name: str
    state: str
    """starting, running, restarting or stopped."""
    restarts: int
    items: int
    """The number of items that the loop has handled since its start."""
    began: float
    last_progress: float | None
    stall_seconds: float | None
    """A loop without progress for so long is not well. Null for a loop that may take any time."""
    last_error: str | None


@with_config(_DESCRIBED)
class StreamSamples(TypedDict):
    """Samples of the total of a stream's events."""

    of: list[tuple[float, int]]
    """Pairs of a time, in seconds since the epoch, and the total at that time."""


@with_config(_DESCRIBED)
class StreamSummary(TypedDict):
    """The counters, rate, lag and latency of one topic's stream."""

    topic: str
    rows: int
    """Rows that were committed to bronze since the stream's start."""
    quarantined: int
    late: int
    too_late: int
    lag: int | None
    """Messages that are not yet read."""
    events_per_second: float | None
    p95_ms: float | None
    """The 95th percentile of the time from an event to its bronze commit, in milliseconds."""
    sinks_behind: dict[str, int]
    """Versions of the bronze table that a sink has not yet applied, by sink."""
    sinks_p95_ms: dict[str, float | None]
    """The 95th percentile of the time from an event to a sink, in milliseconds, by sink."""
    samples: StreamSamples
    last_error: str | None


@with_config(_DESCRIBED)
class PartStatus(TypedDict):
    """The state of a part of the platform. Figures are null while there is no fresh report."""

    address: str
    state: str
    events_per_second: float | None
    lag: int | None
    p95_ms: float | None
    last_error: str | None
    """`exit` and `errors` in one line."""
    exit: str | None
    """Why the part's process has ended, for a minute after that."""
    errors: list[str]
    """The current errors."""
    stalled: bool
    """Whether the part lives, but does not report, hangs, or has fallen silent."""
    restarts: NotRequired[int]
    """Absent for a loop, which restarts with the part that it is within."""
    workers: NotRequired[list[WorkerSummary]]
    within: NotRequired[str]
    """The part whose process this one lives in, or ends with."""
    streams: NotRequired[dict[str, StreamSummary]]
    """The stream of each topic. Only the streaming job has streams."""


@with_config(_DESCRIBED)
class HistoryStatus(TypedDict):
    """How far the simulated history of a new city is made."""

    state: Literal["running", "restarting", "down", "done"]
    """`restarting`: it failed or was killed, and the supervisor starts it again. `down`: nothing continues it now."""
    percent: int
    step: str
    """Such as "table vehicle_speeds"."""
    days: int
    error: str | None
    """The step that failed, and why."""


@with_config(_DESCRIBED)
class PlatformStatus(TypedDict):
    """The status of the platform."""

    parts: dict[str, PartStatus]
    """The parts that were started, and other sources, by name."""
    leftovers: dict[str, int]
    """The process ids of parts that a killed supervisor left behind, by name."""
    bronze_rows: dict[str, int]
    """Rows in bronze, by topic."""
    quarantined: dict[str, int]
    """Rejected messages, by topic."""
    alarm_channels: dict[str, str]
    """The channels that do not accept messages of alarms, with the reason."""
    history: HistoryStatus | None
    """Null for a city without a simulated history."""
