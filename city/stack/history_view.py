"""Shows on a terminal how far the history of a new city is made."""

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from city.stack.history_progress import HISTORY
from city.stack.reports import HistoryStatus
from city.stack.terminal import Terminal, one_line

_BAR_WIDTH = 30
_PERCENT_PER_LINE = 10


def describe_history(history: HistoryStatus) -> str:
    """Describes the state of the history in one line."""
    percent, days, error = history["percent"], _days(history["days"]), history["error"]
    reason = f": {one_line(error)}" if error else ""
    match history["state"]:
        case "done":
            return f"{days}, complete"
        case "running":
            return f"{percent} % of {days}, {one_line(history['step'])}"
        case "restarting" if error:
            return f"failed at {percent} % of {days}, and is tried again{reason}"
        case "restarting":
            return f"{percent} % of {days}, continues in a moment"
        case _:
            return f"stopped at {percent} % of {days}, and the next `city up` with simulators continues it{reason}"


def _days(count: int) -> str:
    return f"{count} day{'' if count == 1 else 's'}"


def build_history_line(history: HistoryStatus, console: Terminal) -> RenderableType:
    """Returns the line of the history for the status page. It has a bar on a terminal while the history is made."""
    name, description = Text(HISTORY, "yellow" if history["error"] else ""), describe_history(history)
    if history["state"] != "running" or not console.is_terminal:
        return Text.assemble(name, f": {description}")
    line = Table.grid(padding=(0, 1))
    line.add_row(name, ProgressBar(total=100, completed=history["percent"], width=_BAR_WIDTH), Text(description))
    return line


class HistoryLines:
    """Decides when the progress of the history is worth another line of a log.

    That is each ten percent, each new kind of step, each failure, and the end.
    """

    def __init__(self) -> None:
        self._shown: tuple[object, ...] = ()

    def next_line(self, history: HistoryStatus | None) -> str | None:
        """Returns the line to print now, or None where the last one is still good.

        A history that was complete at the first call gets no line, and one that nothing makes gets none either.
        """
        if history is None or history["state"] == "down":
            return None
        state = history["state"]
        if state == "running":
            key: tuple[object, ...] = (state, history["percent"] // _PERCENT_PER_LINE, history["step"].split(" ")[0])
        else:
            key = (state, history["error"])
        is_news = key != self._shown and (state != "done" or bool(self._shown))
        self._shown = key
        return f"{HISTORY}: {describe_history(history)}" if is_news else None
