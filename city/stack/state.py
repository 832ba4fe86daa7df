"""The files of <home>/run, in which the running parts say what they do; reading them needs no server."""

import json
import os
from typing import Any

import psutil

from city.settings import Settings

SUPERVISOR = "supervisor.json"
STREAM = "stream.json"
SERVER = "server.json"


def is_alive(pid: int, created: float) -> bool:
    """Whether that very process still runs: ids are used again, start times are not."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def identity() -> dict[str, Any]:
    """Of this process, for its file in <home>/run: `pid` and `created`, its start time."""
    return {"pid": os.getpid(), "created": psutil.Process().create_time()}


def process_of(report: dict[str, Any] | None) -> psutil.Process | None:
    """The process that wrote a report and has not said that it ends, if it still lives: paused or starved too."""
    if report is None or report.get("ended") or not {"pid", "created"} <= report.keys():
        return None  # an earlier version wrote no start time; what it started has ended
    return psutil.Process(report["pid"]) if is_alive(report["pid"], report["created"]) else None


def stream_crashes(report: dict[str, Any] | None) -> int:
    """How often the stream has ended by a kill, a crash or a failure, from its report. Each of its processes goes on
    counting from the report of the one before, so that nobody has to look at the right moment."""
    if report is None:
        return 0
    return int(report.get("crashes", 0)) + int(report.get("failed", False) or _is_killed(report))


def _is_killed(report: dict[str, Any]) -> bool:
    return not report["ended"] and "pid" in report and process_of(report) is None


def read_json(config: Settings, name: str) -> dict[str, Any] | None:
    """A file of <home>/run, or None while it is not there."""
    try:
        found: dict[str, Any] = json.loads((config.run / name).read_text())
        return found
    except (FileNotFoundError, json.JSONDecodeError):
        return None
