"""Reads the files of <home>/run, in which the running parts report their state. This needs no server."""

import json
import os
from typing import Any

import psutil
from typing_extensions import TypedDict

from city.settings import Settings

SUPERVISOR = "supervisor.json"
STREAM = "stream.json"
SERVER = "server.json"
STREAM_PART = "stream"
"""The name of the stream as a part of the platform."""

Report = dict[str, Any]
"""The content of a file of <home>/run. An earlier version may have written it, with other fields."""


class ProcessIdentity(TypedDict):
    """Identifies a process. The system reuses ids, not start times."""

    pid: int
    created: float
    """The start time, in seconds since the epoch."""


def is_alive(pid: int, created: float) -> bool:
    """Returns whether the process with this id and start time still runs. The system reuses ids, not start times.

    `created` is in seconds since the epoch.
    """
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def identity() -> ProcessIdentity:
    """Returns the identity of this process, for its file in <home>/run."""
    return {"pid": os.getpid(), "created": psutil.Process().create_time()}


def process_of(report: Report | None) -> psutil.Process | None:
    """Returns the process that wrote a report, if it still lives and has not reported its end.

    A paused or starved process counts as living.
    """
    if report is None or report.get("ended") or not {"pid", "created"} <= report.keys():
        return None  # an earlier version wrote no start time; its processes have ended
    return psutil.Process(report["pid"]) if is_alive(report["pid"], report["created"]) else None


def has_stream_part(config: Settings) -> bool:
    """Returns whether a living supervisor runs the stream. Then Dagster runs none."""
    state = read_json(config, SUPERVISOR)
    return state is not None and STREAM_PART in state["parts"] and is_alive(state["pid"], state["created"])


def leftovers(config: Settings) -> dict[str, int]:
    """Returns the processes that a killed supervisor left behind: the name of each part and its process id.

    They run on, unsupervised, until the next `city up` or `city down`.
    """
    state = read_json(config, SUPERVISOR)
    if state is None or is_alive(state["pid"], state["created"]):
        return {}
    parts = state["parts"].items()
    return {name: part["pid"] for name, part in parts if part["pid"] and is_alive(part["pid"], part["created"])}


def stream_crashes(report: Report | None) -> int:
    """Returns how often the stream has ended by a kill, a crash or a failure, from its report.

    Each process of the stream continues the count from the report of the process before it. So no reader misses a
    crash between two reads.
    """
    if report is None:
        return 0
    return int(report.get("crashes", 0)) + int(report.get("failed", False) or _is_killed(report))


def _is_killed(report: Report) -> bool:
    return not report["ended"] and "pid" in report and process_of(report) is None


def read_json(config: Settings, name: str) -> Report | None:
    """Reads a file of <home>/run; None while it does not exist, is not JSON, or is empty."""
    try:
        content = json.loads((config.run / name).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) and content else None
