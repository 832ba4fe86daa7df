"""Progress files of a history, as a process that lives, has failed or was killed leaves them."""

import json
import time

from city.settings import Settings
from city.stack.history_progress import HistoryProgress, Report
from city.stack.state import SUPERVISOR, identity

_FILE = "history_progress.json"


def write_progress(config: Settings, percent: int, step: str = "table vehicle_speeds", days: int = 14) -> Report:
    """Writes the progress of this process, which lives."""
    report = Report(config, days)
    report.write(HistoryProgress(percent, step, days, is_recent_made=True, is_finished=percent == 100))
    return report


def end_process(config: Settings) -> None:
    """Changes the progress file to that of a process that has ended."""
    path = config.run / _FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"created": 1.0}))


def write_supervisor(config: Settings, *parts: str) -> None:
    """Writes the state of a supervisor that lives and has these parts."""
    part = {**identity(), "address": "", "state": "restarting", "last_error": None}
    content = {**identity(), "at": time.time(), "stopping": False, "parts": dict.fromkeys(parts, part)}
    config.run.mkdir(parents=True, exist_ok=True)
    (config.run / SUPERVISOR).write_text(json.dumps(content))
