"""Reports how much of the history is made, in <home>/run/history_progress.json."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from city.settings import Settings
from city.stack.history_plan import load_plan, replace_text, unfinished
from city.stack.reports import HistoryStatus
from city.stack.state import SUPERVISOR, identity, is_alive, read_json

HISTORY = "history"
_FILE = "history_progress.json"


@dataclass(frozen=True)
class HistoryProgress:
    """How much of the history is made: the share in percent, the present step, and the days that it has.

    `is_recent_made` is whether the newest part of bronze is there, which the stream's features look back at.
    """

    percent: int
    step: str
    days: int
    is_recent_made: bool
    is_finished: bool
    error: str | None = None


class Report:
    """Writes the progress of this process, which makes a history of so many days."""

    def __init__(self, config: Settings, days: int) -> None:
        self._path = config.run / _FILE
        self._last = HistoryProgress(0, "begins", days, is_recent_made=False, is_finished=False)
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, progress: HistoryProgress) -> None:
        """Replaces the file."""
        self._last = progress
        replace_text(self._path, json.dumps(identity() | asdict(progress)))

    def fail(self, error: Exception) -> None:
        """Adds the error of the present step."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self.write(HistoryProgress(**asdict(self._last) | {"error": f"{self._last.step}: {lines[0][:300]}"}))


def read(config: Settings) -> HistoryProgress | None:
    """Reads the progress. Returns None for a city whose history was never begun."""
    content = read_json(config, _FILE)
    return _parse_progress(content) if content else None


def is_recent_missing(config: Settings) -> bool:
    """Returns whether the newest part of the history is still to be made, which the stream's features look back at."""
    if not config.history_days or not _lacks_domains(config):
        return False
    progress = read(config)
    return progress is None or not (progress.is_recent_made or progress.error)


def is_under_way(config: Settings) -> bool:
    """Returns whether the history is being made, also while the supervisor waits to try a failed step again."""
    status = history_status(config)
    return status is not None and status["state"] in ("running", "restarting")


def history_status(config: Settings) -> HistoryStatus | None:
    """Returns how far the history is made, and whether something makes it now. Returns None where there is none.

    The process may have ended before it could write that: its last progress alone does not mean that it runs.
    """
    content = read_json(config, _FILE)
    if not content or not content["days"]:
        return None
    progress = _parse_progress(content)
    status = HistoryStatus(
        state="down", percent=progress.percent, step=progress.step, days=progress.days, error=progress.error
    )
    if progress.is_finished and not _lacks_domains(config):
        status["state"] = "done"
    elif not progress.is_finished and progress.error is None and is_alive(content["pid"], content["created"]):
        status["state"] = "running"
    elif _is_supervised(config):
        status["state"] = "restarting"
    if status["state"] != "done":
        status["percent"] = min(progress.percent, 99)  # the progress may be that of fewer domains
    return status


def _lacks_domains(config: Settings) -> bool:
    """Returns whether the history lacks active domains, because it was finished with others."""
    plan = load_plan(config)
    return plan is not None and bool(unfinished(config, plan))


def _parse_progress(content: Mapping[str, Any]) -> HistoryProgress:
    return HistoryProgress(**{name: content[name] for name in HistoryProgress.__dataclass_fields__})


def _is_supervised(config: Settings) -> bool:
    """Returns whether a living supervisor has the part that makes the history, and starts it again when it ends."""
    supervisor = read_json(config, SUPERVISOR)
    if supervisor is None or supervisor.get("stopping") or HISTORY not in supervisor["parts"]:
        return False
    return is_alive(supervisor["pid"], supervisor["created"])
