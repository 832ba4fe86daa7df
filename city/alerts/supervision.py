"""The findings when the supervisor of the platform's parts, `city up`, was killed: one alarm, not one for each part."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from city.alerts.model import Finding
from city.alerts.system import SYSTEM
from city.stack.reports import PartStatus

CAUSE = f"{SYSTEM}supervisor"


def describe_kill(started: Collection[str], living: Collection[str]) -> Finding:
    """Returns the failing finding of a supervisor that was killed.

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
        labels={"part": "supervisor", "type": "part"},
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
