"""Judges the platform itself: parts that are down or make no progress, servers that do not answer, a disk nearly full.

The functions are pure: the caller passes the status of the parts. `Parts` keeps how each part was before, and the
caller stores its state.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from city.alerts.model import Finding
from city.severity import Severity
from city.stack.part import UP
from city.stack.reports import PartStatus
from city.stack.status import stands_still

SYSTEM = "system/"
_GROUP = "system"
START_SECONDS = 180.0
"""For so long after it was first seen, a part that is still starting raises no alarm."""
_DOWN_SECONDS = 5.0
"""A part that is down, or a server that does not answer, is an alarm after so long."""
_RETURN_SECONDS = 60.0
"""A part that is being restarted, as the stream is every day, is an alarm after so long."""
_ERROR_SECONDS = 20.0
"""A shorter error, as while a server restarts, is reported only where it happened, and is no alarm."""
_RESTART_SECONDS = 30.0
"""A part that ended and was restarted is an alarm for so long, however quick the restart was."""
_CHILD_SECONDS = 3.0
"""The end of a process is seen so much later than the end of the parts that live in it."""
_LOOP_SECONDS, _LOOP_RESTARTS = 600.0, 3
"""A part that was restarted so often in so long is in a crash loop, whatever its current state."""
_AFTER_SECONDS = 60.0
"""A part that waits for another one may need so long to recover, once the other one works again."""
SIMULATORS, _LOOPS = "simulators", "simulator-"
_SERVERS = {
    "mqtt-bridge": frozenset({"kafka", "mqtt"}),
    SIMULATORS: frozenset({"kafka", "mqtt"}),
    "stream": frozenset({"kafka", "questdb"}),
    "server": frozenset({"kafka", "questdb"}),
}
"""By the name of a part: the servers that it works with."""
_SOURCES = {"mqtt-bridge": frozenset({SIMULATORS}), "stream": frozenset({SIMULATORS, "mqtt-bridge"})}
"""By the name of a part: the parts whose events it waits for."""
_WELL: PartStatus = {
    "address": "",
    "state": "running",
    "events_per_second": None,
    "lag": None,
    "p95_ms": None,
    "last_error": None,
    "exit": None,
    "errors": [],
    "stalled": False,
    "restarts": 0,
}
"""The status of a server that is checked, and that is no part of the platform."""
_GB = 1e9
_UNWATCHED_SECONDS = 180.0
"""After so long without a look, the state of the parts in between is unknown. The duration of errors is then counted
anew. A sensor looks every half minute, or somewhat later."""


@dataclass
class _Seen:
    """The history of one part. Times are seconds since the epoch."""

    first: float
    """When the part was first seen."""
    restarts: int
    """How often the part has been restarted."""
    restarts_at: list[float] = field(default_factory=list)
    """The times of the restarts of the last minutes."""
    is_news: bool = False
    """Whether the last restart has not been reported as failing yet."""
    well: float | None = None
    """When the part was last well."""
    wrong: float | None = None
    """Since when the part has an error."""
    recovered: float | None = None
    """When the part last became well after more than a moment, or was last restarted."""
    unanswered: bool = False
    """Whether the part did not answer the last check. A process that checks nothing cannot see that this has ended."""

    def count_restarts(self, restarts: int, now: float, most: int) -> None:
        """Records the number of restarts. Of the new ones at most `most` count as having happened now."""
        if restarts > self.restarts:
            self.restarts_at += [now] * min(restarts - self.restarts, most)
            self.unanswered, self.recovered, self.is_news = False, now, True  # it is another process
        self.restarts = restarts
        self.restarts_at = [at for at in self.restarts_at if now - at < _LOOP_SECONDS]


class Parts:
    """The history of the platform's parts, from earlier looks of this watcher and of others.

    `state` is the whole history, as JSON, and is stored beside the alarms. The watcher that takes over continues from
    it. So it sees that the watcher before was killed, and does not judge by its own observations of hours ago.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        saved = state or {}
        self._at: float | None = saved.get("at")
        self._platform = saved.get("platform")
        try:
            self._seen = {name: _Seen(**seen) for name, seen in saved.get("seen", {}).items()}
        except TypeError:  # another version of the program saved the state
            self._seen = {}

    @property
    def state(self) -> dict[str, object]:
        """Everything that another watcher needs to continue, as JSON."""
        seen = {name: vars(seen) for name, seen in self._seen.items()}
        return {"at": self._at, "platform": self._platform, "seen": seen}

    def findings(
        self,
        parts: Mapping[str, PartStatus],
        unavailable: Mapping[str, str | None] | None,
        now: float,
        platform: Sequence[float] | None = None,
    ) -> list[Finding]:
        """Judges each part and each server that was checked, and returns one finding for each.

        `parts` are as `city.stack.status.parts` returns them. The reason why a process has ended is no error of the
        process that runs now. `unavailable` has, for each server that was checked, why it does not answer, or None
        where it does. Where a server has the name of a part, the two are one. `unavailable` is None where no server was
        checked. `platform` identifies the supervisor that runs: the history of another supervisor's parts is dropped.
        """
        is_watched = self._begin_look(now, None if platform is None else [*platform])
        checked = unavailable or {}
        observations: dict[str, tuple[PartStatus, str | None, bool]] = {}
        for name in sorted(parts.keys() | checked.keys()):
            part = parts.get(name, _WELL)
            seen = self._seen.setdefault(name, _Seen(now, part.get("restarts", 0)))
            # Without a recent look the times of several restarts are unknown.
            seen.count_restarts(part.get("restarts", 0), now, _LOOP_RESTARTS if is_watched else 1)
            if name in checked:
                seen.unanswered = checked[name] is not None
            observations[name] = part, checked.get(name), name in checked or not seen.unanswered
            _time_errors(*observations[name], seen, now)
        findings = []
        for name, (part, failure, is_known) in observations.items():  # after the loop above, which updated all parts
            if self._has_lost_its_process(part, parts, now):
                # The part ended with its process, which has its own alarm.
                self._seen[name].restarts_at, self._seen[name].is_news = [], False
            is_explained = failure is None and self._is_explained(name, parts, now)
            findings.append(_judge_part(name, part, failure, is_known, is_explained, self._seen[name], now))
        if unavailable is not None:  # otherwise the history of servers that others check stays
            self._seen = {name: seen for name, seen in self._seen.items() if name in parts or name in checked}
        return findings

    def _is_explained(self, name: str, parts: Mapping[str, PartStatus], now: float) -> bool:
        """Whether all errors of a part follow from the state of another part, which has its own alarm."""
        part = parts.get(name, _WELL)
        if self._has_lost_its_process(part, parts, now):
            return True
        servers, sources = _needs_of(name)
        unavailable_servers = [server for server in servers if self._is_unstable(server, now)]
        is_starved = bool(unavailable_servers) or any(
            self._is_unstable(other, now) for other in self._seen if _family_of(other) in sources
        )
        return _is_running(part) and all(
            _is_caused_by(error, unavailable_servers, is_starved) for error in part["errors"]
        )

    def _has_lost_its_process(self, part: PartStatus, parts: Mapping[str, PartStatus], now: float) -> bool:
        """Whether the process of a loop or of the stream does not run or hangs, or was so until a moment ago.

        That is the process that the part lives in, or whose child it is and with which it ends. The error of another
        loop in the process does not count.
        """
        process = parts.get(part.get("within", ""))
        if process is None:
            return False
        is_away = not _is_running(process) or process.get("stalled", False)
        return is_away or (not process["errors"] and self._is_unstable(part["within"], now))

    def _is_unstable(self, name: str, now: float) -> bool:
        """Whether a part has an error, or had one until a moment ago."""
        seen = self._seen.get(name)
        if seen is None:
            return False
        return seen.wrong is not None or (seen.recovered is not None and 0 <= now - seen.recovered < _AFTER_SECONDS)

    def _begin_look(self, now: float, platform: list[float] | None) -> bool:
        """Begins a look. Returns whether the look before was a moment ago."""
        if platform != self._platform:
            self._platform, self._seen = platform, {}
        is_watched = self._at is not None and 0 <= now - self._at <= _UNWATCHED_SECONDS
        if not is_watched:
            for seen in self._seen.values():
                seen.wrong = None
                # The clock may have been set back. Then the time of a restart is unknown, and it is already reported.
                seen.first = min(seen.first, now)
                seen.restarts_at = [at for at in seen.restarts_at if at <= now]
        self._at = now
        return is_watched


def _is_caused_by(error: str, servers: Iterable[str], is_starved: bool) -> bool:
    """Whether an error of a part is about one of the `servers`, which are unavailable, or only reports that the part
    makes no progress while something that it needs is unavailable (`is_starved`)."""
    return any(server in error.lower() for server in servers) or (is_starved and stands_still(error))


def _needs_of(name: str) -> tuple[frozenset[str], frozenset[str]]:
    """The servers that a part works with, and the families of parts whose events it waits for."""
    return _SERVERS.get(_family_of(name), frozenset()), _SOURCES.get(_family_of(name), frozenset())


def _family_of(name: str) -> str:
    """The family of a part. All simulators, in one process or in processes of their own, are one family."""
    return SIMULATORS if name.startswith(_LOOPS) else name


def _time_errors(part: PartStatus, failure: str | None, is_known: bool, seen: _Seen, now: float) -> None:
    """Records since when a part has been well, or has had an error. `failure` is why it does not answer."""
    if _is_running(part) and failure is None and not part["errors"] and is_known:
        if seen.wrong is not None and now - seen.wrong >= _DOWN_SECONDS:
            seen.recovered = now
        seen.well, seen.wrong = now, None
    elif seen.wrong is None:
        seen.wrong = now


def _is_running(part: PartStatus) -> bool:
    return part["state"] in UP


def _judge_part(
    name: str, part: PartStatus, failure: str | None, is_known: bool, is_explained: bool, seen: _Seen, now: float
) -> Finding:
    """The finding of a part or a server, from its status and its history. `failure` is why it does not answer."""
    runs = _is_running(part)
    error = failure or "; ".join(part["errors"]) or None
    reason = part["exit"] or error
    detail = {"part": name, "state": part["state"], "restarts": seen.restarts, "error": reason}
    labels = {"part": name, "type": "part"}

    def finding(state: str, severity: Severity, title: str) -> Finding:
        return Finding(f"{SYSTEM}{name}", severity, title, _GROUP, detail, state, labels)  # type: ignore[arg-type]

    reason_text = f": {reason}" if reason else ""
    since = now - seen.restarts_at[-1] if seen.restarts_at else _LOOP_SECONDS
    if seen.is_news and since < (_CHILD_SECONDS if "within" in part else 0.0):
        return finding("unknown", "error", "")
    is_news, seen.is_news = seen.is_news, False  # a watcher that looks seldom reports a restart once
    if len(seen.restarts_at) >= _LOOP_RESTARTS:
        frequency = f"{len(seen.restarts_at)} times within {_LOOP_SECONDS / 60:.0f} minutes"
        return finding("failing", "error", f"{name} is in a crash loop, ended {frequency}{reason_text}")
    if is_news or since < _RESTART_SECONDS:
        is_back = runs and failure is None
        restart_text = "" if part["state"] == "down" else ", and is being started again"
        text = "ended and was started again" if is_back else f"is down: it ended{restart_text}"
        return finding("failing", "error", f"{name} {text}{reason_text}")
    if runs and error is None:
        return finding("passing" if is_known else "unknown", "error", "")
    assert seen.wrong is not None
    if is_explained or (seen.well is None and now - seen.first < START_SECONDS):
        return finding("unknown", "error", "")
    returns = part["state"] in ("starting", "restarting")
    if not runs and now - seen.wrong >= (_RETURN_SECONDS if returns else _DOWN_SECONDS):
        return finding("failing", "error", f"{name} is {part['state']}{reason_text}")
    if runs and now - seen.wrong >= (_DOWN_SECONDS if failure else _ERROR_SECONDS):
        severity: Severity = "error" if failure or part.get("stalled") else "warning"
        return finding("failing", severity, f"{name}: {error}")
    return finding("unknown", "error", "")


def disk(folder: Path, least_gb: float) -> tuple[Finding, dict[str, float | None]]:
    """Checks the free space of a folder's disk: an error below `least_gb` (GB), a warning below twice that.

    Returns the finding, and the metrics `system.disk_free_gb` and `system.disk_free_share`.
    """
    usage = shutil.disk_usage(folder)
    free = usage.free / _GB
    wrong = free < 2 * least_gb
    finding = Finding(
        f"{SYSTEM}disk",
        "error" if free < least_gb else "warning",
        f"the disk of {folder} has {free:.1f} GB left of {usage.total / _GB:.0f}: free some before it is full",
        _GROUP,
        {"free_gb": round(free, 2), "least_gb": least_gb},
        "failing" if wrong else "passing",
        {"type": "disk"},
    )
    return finding, {"system.disk_free_gb": free, "system.disk_free_share": usage.free / usage.total}


def metrics(findings: Iterable[Finding]) -> dict[str, float | None]:
    """The metric `system.failing.<name>` of each part: 1 where it fails, 0 where it is well, None where unknown."""
    values = {"failing": 1.0, "passing": 0.0, "unknown": None}
    return {f"system.failing.{f.cause.removeprefix(SYSTEM)}": values[f.state] for f in findings}
