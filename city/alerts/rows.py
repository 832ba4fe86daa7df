"""An alarm as a row of the store: pure functions of rows. Times are seconds since the epoch."""

import json
from collections.abc import Iterable
from datetime import timedelta
from fnmatch import fnmatchcase

from typing_extensions import TypedDict

from city.alerts.model import Alarm, Event, Finding
from city.alerts.schema import to_time
from city.severity import SEVERITIES, Severity

FLAPS, FLAPS_WITHIN = 4, timedelta(hours=1)
"""A cause flaps when it is raised and this is its fourth change, or a later one, in so long: the third outage. So it
sends raised, cleared, raised, cleared and flapping, and never an end as something new."""
_TITLE, _GROUP = 500, 200  # characters


class FindingColumns(TypedDict):
    """The columns that each finding replaces. `detail` and `labels` are JSON."""

    title: str
    group: str
    detail: str | None
    labels: str | None


class NewAlarmRow(FindingColumns):
    """The row of an alarm that the store has not numbered yet."""

    cause: str
    severity: Severity
    active: bool
    acknowledged: bool
    open: bool
    flapping: bool
    told: str | None
    """The severity that people were last notified of, after `FLAPPING` where they know only that the cause flaps."""
    told_to: str
    """The channels that had messages about the alarm, as JSON."""
    count: int
    first_at: float
    last_at: float
    active_at: float
    changed_at: float
    changes: str
    """The times of the latest changes, as JSON."""
    assignee: str | None
    escalations: int


class AlarmRow(NewAlarmRow):
    """A row of the table of alarms."""

    id: int


def new_row(finding: Finding, moment: float) -> NewAlarmRow:
    """The row of an alarm that a finding raises."""
    return {
        "cause": finding.cause,
        "severity": finding.severity,
        **finding_columns(finding),
        "first_at": moment,
        "last_at": moment,
        "active_at": moment,
        "changed_at": moment,
        "count": 1,
        "escalations": 0,
        "changes": json.dumps([moment]),
        "active": True,
        "acknowledged": False,
        "open": True,
        "flapping": False,
        "assignee": None,
        "told": None,
        "told_to": "[]",
    }


def finding_columns(finding: Finding) -> FindingColumns:
    """The columns that each finding replaces."""
    return {
        "title": finding.title[:_TITLE],
        "group": finding.group[:_GROUP],
        "detail": json.dumps(finding.detail, default=str) if finding.detail else None,
        "labels": json.dumps(dict(finding.labels)) if finding.labels else None,
    }


def is_repeat(row: AlarmRow, finding: Finding) -> bool:
    """Whether a failing finding leaves an alarm's state and severity as they are."""
    return bool(row["active"]) and raised_by_steps(finding.severity, row["escalations"]) == row["severity"]


def changes_with(row: AlarmRow, moment: float) -> str:
    """The times of an alarm's latest changes and of that one, as JSON. A message about flapping that is sent later than
    the flapping begins, or ends, counts as a change too."""
    return json.dumps([*json.loads(row["changes"]), moment][-FLAPS:])


def recent_changes(row: AlarmRow, moment: float) -> int:
    """How many changes an alarm had within `FLAPS_WITHIN`."""
    since = moment - FLAPS_WITHIN.total_seconds()
    return sum(at > since for at in json.loads(row["changes"]))


def escalated_severity(row: AlarmRow, after: timedelta, moment: float) -> Severity | None:
    """The next severity of an alarm that nobody has acknowledged for `after`; None where it is not due."""
    due = row["active_at"] + (row["escalations"] + 1) * after.total_seconds() <= moment
    if not due or row["acknowledged"] or not row["active"] or row["flapping"]:
        return None
    step = rank(row["severity"]) + 1
    return SEVERITIES[step] if step < len(SEVERITIES) else None


def raised_by_steps(severity: Severity, steps: int) -> Severity:
    """The severity so many steps higher, at most critical."""
    return SEVERITIES[min(rank(severity) + steps, len(SEVERITIES) - 1)]


def rank(severity: str) -> int:
    """0 for the lowest severity."""
    return [*SEVERITIES].index(severity)  # type: ignore[arg-type]


def matches(cause: str, pattern: str) -> bool:
    """Whether a silence's pattern covers a cause."""
    return fnmatchcase(cause, pattern)


def is_silenced(cause: str, patterns: Iterable[str]) -> bool:
    """Whether any pattern covers a cause."""
    return any(matches(cause, pattern) for pattern in patterns)


def to_alarm(row: AlarmRow, patterns: Iterable[str]) -> Alarm:
    """The alarm of a row; `patterns` are those of the silences."""
    return Alarm(
        id=row["id"],
        cause=row["cause"],
        severity=row["severity"],
        title=row["title"],
        group=row["group"],
        count=row["count"],
        assignee=row["assignee"],
        escalations=row["escalations"],
        active=bool(row["active"]),
        acknowledged=bool(row["acknowledged"]),
        first_at=to_time(row["first_at"]),
        last_at=to_time(row["last_at"]),
        flapping=bool(row["flapping"]),
        silenced=is_silenced(row["cause"], patterns),
        labels=json.loads(row["labels"]) if row["labels"] else {},
        detail=json.loads(row["detail"]) if row["detail"] else None,
    )


def to_payload(row: AlarmRow, event: Event) -> dict[str, object]:
    """An alarm as messages contain it."""
    alarm = to_alarm(row, ())
    return {
        "id": alarm.id,
        "cause": alarm.cause,
        "severity": alarm.severity,
        "title": alarm.title,
        "event": event,
        "state": alarm.state,
        "count": alarm.count,
        "first_at": alarm.first_at.isoformat(),
        "last_at": alarm.last_at.isoformat(),
        "assignee": alarm.assignee,
        "labels": dict(alarm.labels),
        "detail": alarm.detail,
    }
