"""The files of <home>/run, in which the running parts say what they do; reading them needs no server."""

import json
from typing import Any

import psutil

from city.settings import Settings

SUPERVISOR = "supervisor.json"
STREAM = "stream.json"


def is_alive(pid: int, created: float) -> bool:
    """Whether that very process still runs: ids are used again, start times are not."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def read_json(config: Settings, name: str) -> dict[str, Any] | None:
    """A file of <home>/run, or None while it is not there."""
    try:
        found: dict[str, Any] = json.loads((config.run / name).read_text())
        return found
    except (FileNotFoundError, json.JSONDecodeError):
        return None
