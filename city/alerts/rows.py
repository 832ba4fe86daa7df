"""An alarm as a row of the store: pure functions of rows. Times are seconds since the epoch."""

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

from city.alerts.model import Alarm, Event, Finding
from city.alerts.schema import to_time
from city.severity import SEVERITIES, Severity

FLAPS, FLAPS_WITHIN = 4, timedelta(hours=1)
"""A cause flaps when it is raised and this is its fourth change, or a later one, in so long: the third outage. So it
sends raised, cleared, raised, cleared and flapping, and never an end as something new."""
_TITLE, _GROUP = 500, 200  # characters


def new_row(finding: Finding, moment: float) -> dict[str, Any]:
    """The row of an alarm that a finding raises."""
    times = dict.fromkeys(("first_at", "last_at", "active_at", "changed_at"), moment)
    counts = {"count": 1, "escalations": 0, "changes": json.dumps([moment])}
    states = {"active": True, "acknowledged": False, "open": True, "flapping": False, "assignee": None}
    sent = {"told": None, "told_to": "[]"}
    identity = {"cause": finding.cause, "severity": finding.severity}
    return {**identity, **finding_columns(finding), **times, **counts, **states, **sent}


def finding_columns(finding: Finding) -> dict[str, Any]:
    """The columns that each finding replaces."""
    return {
        "title": finding.title[:_TITLE],
        "group": finding.group[:_GROUP],
        "detail": json.dumps(finding.detail, default=str) if finding.detail else None,
        "labels": json.dumps(dict(finding.labels)) if finding.labels else None,
    }


def is_repeat(row: Mapping[str, Any], finding: Finding) -> bool:
    """Whether a failing finding leaves an alarm's state and severity as they are."""
    return bool(row["active"]) and raised_by_steps(finding.severity, row["escalations"]) == row["severity"]


def change_columns(row: Mapping[str, Any], moment: float) -> dict[str, Any]:
    """The columns of a change (raised again, or cleared) at that moment."""
    return {"changed_at": moment, "changes": changes_with(row, moment)}


def changes_with(row: Mapping[str, Any], moment: float) -> str:
    """The times of an alarm's latest changes and of that one, as JSON. A message about flapping that is sent later than
    the flapping begins, or ends, counts as a change too."""
    return json.dumps([*json.loads(row["changes"]), moment][-FLAPS:])


def recent_changes(row: Mapping[str, Any], moment: float) -> int:
    """How many changes an alarm had within `FLAPS_WITHIN`."""
    since = moment - FLAPS_WITHIN.total_seconds()
    return sum(at > since for at in json.loads(row["changes"]))


def escalated_severity(row: Mapping[str, Any], after: timedelta, moment: float) -> Severity | None:
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


def to_alarm(row: Mapping[str, Any], patterns: Iterable[str]) -> Alarm:
    """The alarm of a row; `patterns` are those of the silences."""
    same = ("id", "cause", "severity", "title", "group", "count", "assignee", "escalations")
    return Alarm(
        **{name: row[name] for name in same},
        active=bool(row["active"]),
        acknowledged=bool(row["acknowledged"]),
        first_at=to_time(row["first_at"]),
        last_at=to_time(row["last_at"]),
        flapping=bool(row["flapping"]),
        silenced=is_silenced(row["cause"], patterns),
        labels=json.loads(row["labels"]) if row["labels"] else {},
        detail=json.loads(row["detail"]) if row["detail"] else None,
    )


def to_payload(row: Mapping[str, Any], event: Event) -> dict[str, Any]:
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
