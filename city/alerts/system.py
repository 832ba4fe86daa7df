"""What is wrong with the platform itself: parts that are down or stand still, what does not answer, a disk nearly full.

Pure: what was found is given, and what a part was like before is kept by `Parts`, whose state is its caller's.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from city.alerts.model import Finding
from city.severity import Severity
from city.stack.status import stands_still

SYSTEM = "system/"
_GROUP = "system"
START_SECONDS = 180.0
"""So long after it was first seen, a part that starts is no news."""
_DOWN_SECONDS = 5.0
_RETURN_SECONDS = 60.0
"""What is being started again, as a stream is every day, has so long."""
_ERROR_SECONDS = 20.0
"""An error that passes sooner, as of a server that is started again, is said where it happened, and is no alarm."""
_RESTART_SECONDS = 30.0
"""A part that ended and was started again is an alarm for so long, however quick it was."""
_CHILD_SECONDS = 3.0
"""That the process is gone to which a part belongs is known so much later than that the part is."""
_LOOP_SECONDS, _LOOP_RESTARTS = 600.0, 3
"""A part that was started again so often in so long is in a crash loop, whatever its state of the moment."""
_AFTER_SECONDS = 60.0
"""What waits for a part may take so long until it goes on, once that is well again."""
SIMULATORS, _LOOPS = "simulators", "simulator-"
_SERVERS = {
    "mqtt-bridge": frozenset({"kafka", "mqtt"}),
    SIMULATORS: frozenset({"kafka", "mqtt"}),
    "stream": frozenset({"kafka", "questdb"}),
    "server": frozenset({"kafka", "questdb"}),
}
"""By the name of a part, the servers that it works with."""
_SOURCES = {"mqtt-bridge": frozenset({SIMULATORS}), "stream": frozenset({SIMULATORS, "mqtt-bridge"})}
"""The parts whose events it waits for."""
_WELL: Mapping[str, Any] = {"state": "running", "restarts": 0, "exit": None, "errors": []}
"""What is asked, and is no part of ours."""
_GB = 1e9
_UNWATCHED_SECONDS = 180.0
"""After so long without a look nobody knows how it was in between: what is wrong is timed anew. A sensor looks every
half minute, or somewhat later."""


@dataclass
class _Seen:
    first: float
    restarts: int
    restarts_at: list[float] = field(default_factory=list)
    """When it was started again, of the last minutes."""
    is_news: bool = False
    """Whether the last restart has not been found failing yet."""
    well: float | None = None
    """When it was last well."""
    wrong: float | None = None
    """Since when it has an error."""
    recovered: float | None = None
    """When it last became well after more than a moment, or was last started again."""
    unanswered: bool = False
    """Whether it did not answer when it was last asked. Who asks nothing cannot tell that it is over."""

    def count_restarts(self, restarts: int, now: float, most: int) -> None:
        """Takes over how often it has been started again; `most` of those that are new have been just now."""
        if restarts > self.restarts:
            self.restarts_at += [now] * min(restarts - self.restarts, most)
            self.unanswered, self.recovered, self.is_news = False, now, True  # it is another process
        self.restarts = restarts
        self.restarts_at = [at for at in self.restarts_at if now - at < _LOOP_SECONDS]


class Parts:
    """What is known of the parts of a platform from the looks before, of this watcher and of others.

    `state` is all of it, as JSON, and is kept beside the alarms: the watcher that takes over goes on from it, so it
    sees that the one before was killed, and judges nothing by what it saw itself hours ago.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        saved = state or {}
        self._at: float | None = saved.get("at")
        self._platform = saved.get("platform")
        try:
            self._seen = {name: _Seen(**seen) for name, seen in saved.get("seen", {}).items()}
        except TypeError:  # of another version of the program
            self._seen = {}

    @property
    def state(self) -> dict[str, Any]:
        seen = {name: vars(seen) for name, seen in self._seen.items()}
        return {"at": self._at, "platform": self._platform, "seen": seen}

    def findings(
        self,
        parts: Mapping[str, Mapping[str, Any]],
        unavailable: Mapping[str, str | None] | None,
        now: float,
        platform: Sequence[float] | None = None,
    ) -> list[Finding]:
        """One for each part (as `city.stack.status.parts` has them; why one has ended is no error of the one that runs
        now) and each thing that was asked (`unavailable`: why it does not answer, None where it does), which is the
        part's where a part has its name. `unavailable` is None where nobody asks. `platform` names the supervisor that
        runs: of another one's parts all is new.
        """
        is_watched = self._begin(now, None if platform is None else [*platform])
        asked = unavailable or {}
        looked_at: dict[str, tuple[Mapping[str, Any], str | None, bool]] = {}
        for name in sorted(parts.keys() | asked.keys()):
            part = parts.get(name, _WELL)
            seen = self._seen.setdefault(name, _Seen(now, part.get("restarts", 0)))
            # When each of several restarts was, nobody knows who did not look.
            seen.count_restarts(part.get("restarts", 0), now, _LOOP_RESTARTS if is_watched else 1)
            if name in asked:
                seen.unanswered = asked[name] is not None
            looked_at[name] = part, asked.get(name), name in asked or not seen.unanswered
            _follow(*looked_at[name], seen, now)
        findings = []
        for name, (part, silent, is_known) in looked_at.items():  # by now it is known how all that it needs is
            if self._has_lost_its_process(part, parts, now):
                # It ended with that process, which has its own alarm.
                self._seen[name].restarts_at, self._seen[name].is_news = [], False
            is_explained = silent is None and self._is_explained(name, parts, now)
            findings.append(_judge(name, part, silent, is_known, is_explained, self._seen[name], now))
        if unavailable is not None:  # else what is asked about is still there
            self._seen = {name: seen for name, seen in self._seen.items() if name in parts or name in asked}
        return findings

    def _is_explained(self, name: str, parts: Mapping[str, Mapping[str, Any]], now: float) -> bool:
        """Whether all that is wrong with a part follows from another one, which has its own alarm."""
        part = parts.get(name, _WELL)
        if self._has_lost_its_process(part, parts, now):
            return True
        servers, sources = _needs(name)
        away = [server for server in servers if self._is_shaken(server, now)]
        is_starved = bool(away) or any(self._is_shaken(other, now) for other in self._seen if _family(other) in sources)
        return _runs(part) and all(_explained(error, away, is_starved) for error in part["errors"])

    def _has_lost_its_process(
        self, part: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]], now: float
    ) -> bool:
        """Whether the process that a loop or the stream lives in (or is a child of, and ends with) does not run, hangs,
        or did until a moment ago. Another loop's error is its own."""
        process = parts.get(part.get("within", ""))
        if process is None:
            return False
        is_away = not _runs(process) or process.get("stalled", False)
        return is_away or (not process["errors"] and self._is_shaken(part["within"], now))

    def _is_shaken(self, name: str, now: float) -> bool:
        """Whether something is wrong with a part, or was until a moment ago."""
        seen = self._seen.get(name)
        if seen is None:
            return False
        return seen.wrong is not None or (seen.recovered is not None and 0 <= now - seen.recovered < _AFTER_SECONDS)

    def _begin(self, now: float, platform: list[float] | None) -> bool:
        """Whether somebody has looked a moment ago."""
        if platform != self._platform:
            self._platform, self._seen = platform, {}
        is_watched = self._at is not None and 0 <= now - self._at <= _UNWATCHED_SECONDS
        if not is_watched:
            for seen in self._seen.values():
                seen.wrong = None
                # The clock may have been set back: when a restart was is not known then, and it was told already.
                seen.first = min(seen.first, now)
                seen.restarts_at = [at for at in seen.restarts_at if at <= now]
        self._at = now
        return is_watched


def _explained(error: str, servers: Iterable[str], is_starved: bool) -> bool:
    """Whether an error of a part is about one of the servers that are away, or only says that nothing moves, where
    what it needs is away."""
    return any(server in error.lower() for server in servers) or (is_starved and stands_still(error))


def _needs(name: str) -> tuple[frozenset[str], frozenset[str]]:
    """The servers that a part works with, and the families of parts whose events it waits for."""
    return _SERVERS.get(_family(name), frozenset()), _SOURCES.get(_family(name), frozenset())


def _family(name: str) -> str:
    """All simulators, in one process or by themselves, are alike."""
    return SIMULATORS if name.startswith(_LOOPS) else name


def _follow(part: Mapping[str, Any], silent: str | None, is_known: bool, seen: _Seen, now: float) -> None:
    """Times how long a part has been well, or has not."""
    if _runs(part) and silent is None and not part["errors"] and is_known:
        if seen.wrong is not None and now - seen.wrong >= _DOWN_SECONDS:
            seen.recovered = now
        seen.well, seen.wrong = now, None
    elif seen.wrong is None:
        seen.wrong = now


def _runs(part: Mapping[str, Any]) -> bool:
    return part["state"] in ("running", "external")


def _judge(
    name: str, part: Mapping[str, Any], silent: str | None, is_known: bool, is_explained: bool, seen: _Seen, now: float
) -> Finding:
    runs = _runs(part)
    error = silent or "; ".join(part["errors"]) or None
    reason = part["exit"] or error
    detail = {"part": name, "state": part["state"], "restarts": seen.restarts, "error": reason}
    labels = {"part": name, "type": "part"}

    def finding(state: str, severity: Severity, title: str) -> Finding:
        return Finding(f"{SYSTEM}{name}", severity, title, _GROUP, detail, state, labels)  # type: ignore[arg-type]

    because = f": {reason}" if reason else ""
    since = now - seen.restarts_at[-1] if seen.restarts_at else _LOOP_SECONDS
    if seen.is_news and since < (_CHILD_SECONDS if "within" in part else 0.0):
        return finding("unknown", "error", "")
    is_news, seen.is_news = seen.is_news, False  # who looks seldom finds it once
    if len(seen.restarts_at) >= _LOOP_RESTARTS:
        often = f"{len(seen.restarts_at)} times within {_LOOP_SECONDS / 60:.0f} minutes"
        return finding("failing", "error", f"{name} is in a crash loop, ended {often}{because}")
    if is_news or since < _RESTART_SECONDS:
        is_back = runs and silent is None
        then = "" if part["state"] == "down" else ", and is being started again"
        text = "ended and was started again" if is_back else f"is down: it ended{then}"
        return finding("failing", "error", f"{name} {text}{because}")
    if runs and error is None:
        return finding("passing" if is_known else "unknown", "error", "")
    assert seen.wrong is not None
    if is_explained or (seen.well is None and now - seen.first < START_SECONDS):
        return finding("unknown", "error", "")
    returns = part["state"] in ("starting", "restarting")
    if not runs and now - seen.wrong >= (_RETURN_SECONDS if returns else _DOWN_SECONDS):
        return finding("failing", "error", f"{name} is {part['state']}{because}")
    if runs and now - seen.wrong >= (_DOWN_SECONDS if silent else _ERROR_SECONDS):
        severity: Severity = "error" if silent or part.get("stalled") else "warning"
        return finding("failing", severity, f"{name}: {error}")
    return finding("unknown", "error", "")


def disk(folder: Path, least_gb: float) -> tuple[Finding, dict[str, float | None]]:
    """Whether the disk of a folder has room for what comes: an error below `least_gb`, a warning below twice that.
    And the metrics `system.disk_free_gb` and `system.disk_free_share`."""
    usage = shutil.disk_usage(folder)
    free = usage.free / _GB
    wrong = free < 2 * least_gb
    finding = Finding(
        f"{SYSTEM}disk",
        "error" if free < least_gb else "warning",
        f"the disk of {folder} has {free:.1f} GB left of {usage.total / _GB:.0f}: free some, or what comes is held up",
        _GROUP,
        {"free_gb": round(free, 2), "least_gb": least_gb},
        "failing" if wrong else "passing",
        {"type": "disk"},
    )
    return finding, {"system.disk_free_gb": free, "system.disk_free_share": usage.free / usage.total}


def metrics(found: Iterable[Finding]) -> dict[str, float | None]:
    """`system.failing.<name>` of each part: 1 where it is, 0 where it is well."""
    known = {"failing": 1.0, "passing": 0.0, "unknown": None}
    return {f"system.failing.{f.cause.removeprefix(SYSTEM)}": known[f.state] for f in found}
