"""Judges the supervisor of the platform's parts, `city up`: when it was killed, that is one alarm, not one per part.

The functions are pure: the caller passes the state file of the supervisor and which of its processes still live.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from city.alerts.model import Finding
from city.alerts.system import SYSTEM
from city.stack.reports import PartStatus

CAUSE = f"{SYSTEM}supervisor"


def judge_supervisor(killed: bool, started: Collection[str], living: Collection[str]) -> Finding:
    """Returns the finding of the supervisor.

    `started` are the names of the parts that it started, `living` those whose process still runs.
    """
    ended = sorted(set(started) - set(living))
    return Finding(
        CAUSE,
        "error",
        "`city up` was killed, so parts that end are not restarted. "
        + (f"Ended: {', '.join(ended)}. " if ended else "")
        + "`city up` starts the city again",
        "system",
        {"running": sorted(living), "ended": ended},
        "failing" if killed else "passing",
        {"part": "supervisor", "type": "part"},
    )


def without_unsupervised(
    findings: Collection[Finding],
    parts: Mapping[str, PartStatus],
    unavailable: Mapping[str, str | None] | None,
) -> list[Finding]:
    """Returns the findings of parts whose supervisor was killed: a part that counts as down for this reason is unknown.

    A server that does not answer (`unavailable` has the reason) keeps its finding.
    """
    explained = {
        f"{SYSTEM}{name}"
        for name, part in parts.items()
        if part["state"] == "down" and (unavailable or {}).get(name) is None
    }
    return [replace(f, state="unknown") if f.cause in explained else f for f in findings]
