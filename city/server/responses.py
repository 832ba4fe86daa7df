"""The responses of the routes that all domains share."""

from datetime import datetime

from pydantic import ConfigDict, JsonValue, with_config
from typing_extensions import TypedDict

from city.alerts.queries import HistoryEntry
from city.severity import Severity
from city.stack.reports import HistoryStatus, PlatformStatus
from city.web.responses import DeclaredResponse


class LayerDescription(DeclaredResponse):
    """A layer of the live city."""

    columns: tuple[str, ...]
    """The columns of its rows: the key, the time in milliseconds since the epoch, and the others."""
    means: str


class ConfigResponse(DeclaredResponse):
    """The settings that a page needs before it can send a key."""

    wants_key: bool
    map_style: str | None
    """The URL of the map's style; null for the map that needs no internet."""
    timezone: str
    layers: dict[str, LayerDescription]


class StatsResponse(DeclaredResponse):
    """Rates, lag, latency and counts."""

    at: float
    """The server's time, in seconds since the epoch."""
    up_seconds: int
    events_per_second: float | None
    lag: int | None
    p95_ms: float | None
    """The 95th percentile of the time from an event to its bronze commit, in milliseconds."""
    events: int
    """Rows in bronze, of all topics."""
    quarantined: int
    live: dict[str, int]
    """The number of rows, by layer."""
    predictions: int
    """Predictions that were recorded since the server's start."""
    models_serving: int
    clients: int
    """Open WebSockets."""
    history: HistoryStatus | None
    """How far the simulated history is made. Null for a city without one."""


@with_config(ConfigDict(use_attribute_docstrings=True))
class Links(TypedDict):
    """Addresses of other pages of the platform."""

    dagster: str
    mlflow: str | None
    data_docs: list[str]
    """Paths of the quality reports, on this server."""


@with_config(ConfigDict(use_attribute_docstrings=True))
class OperationsResponse(PlatformStatus):
    """The status of every part and stream, and the drift of features."""

    live_error: str | None
    """Why the live city is not up to date; null where it is."""
    drift: dict[str, dict[str, float]]
    """The largest effect size of the newest comparison, by feature view and feature."""
    links: Links


class FailedCheck(DeclaredResponse):
    """An asset check that failed when it was last evaluated."""

    asset: str
    check: str
    severity: str
    says: str
    at: str | None
    """The time of the evaluation, as ISO 8601 text."""
    link: str
    """The check in Dagster's UI."""


class ChecksResponse(DeclaredResponse):
    """The results of the asset checks at their last evaluation."""

    error: str | None
    """Why there are no results; null where there are."""
    passed: int
    failed: list[FailedCheck]


@with_config(ConfigDict(use_attribute_docstrings=True))
class LayerRowsResponse(TypedDict):
    """The rows of a layer of the live city, by column."""

    at: float
    """The server's time, in seconds since the epoch."""
    rows: list[dict[str, JsonValue]]


class FactResponse(DeclaredResponse):
    """A sentence, or a figure with its label, or both."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    sentence: str
    label: str
    value: float | None
    unit: str
    before: float | None
    """The figure of the same day a week ago."""


class TodayResponse(DeclaredResponse):
    """The facts of the local day so far."""

    at: float
    """The server's time, in seconds since the epoch."""
    timezone: str
    facts: list[FactResponse]


class AlarmResponse(DeclaredResponse):
    """An alarm, which has one cause."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    cause: str
    severity: Severity
    title: str
    group: str
    active: bool
    acknowledged: bool
    count: int
    """How often the alarm was raised or repeated."""
    first_at: datetime
    last_at: datetime
    assignee: str | None
    escalations: int
    """By how many steps the severity rose because nobody acknowledged the alarm."""
    flapping: bool
    """Whether the alarm was raised and cleared so often that messages tell only this, and later its end."""
    silenced: bool
    labels: dict[str, str]
    detail: dict[str, JsonValue] | None
    state: str
    """Such as "active, unacknowledged"."""


class AlarmsResponse(DeclaredResponse):
    """Alarms, the most severe and newest first."""

    alarms: list[AlarmResponse]


class AlarmHistoryResponse(DeclaredResponse):
    """The events of an alarm, the oldest first."""

    history: list[HistoryEntry]
