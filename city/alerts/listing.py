"""Prints alarms on a terminal: as a table where it is wide enough, otherwise as a record for each alarm."""

from collections.abc import Sequence
from datetime import datetime

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from city.alerts.model import Alarm
from city.alerts.outbox import UnsentMessages
from city.stack.terminal import Terminal, one_line

_TABLE_WIDTH = 140
"""In a narrower table a title would have only a few words per line."""
_INDENT = 4


def show(alarms: Sequence[Alarm], terminal: Terminal) -> None:
    """Prints alarms. Where the output is no terminal, each title is one line, however long: programs read lines."""
    if not alarms:
        terminal.print("no alarms")
    elif terminal.is_terminal and terminal.width >= _TABLE_WIDTH:
        terminal.print(_build_table(alarms))
    else:
        for alarm in alarms:
            _print_record(alarm, terminal)


def unsent_line(channel: UnsentMessages) -> str:
    """The messages that a channel has not accepted, in one line."""
    counts = [f"{channel.waiting} message(s) wait since {format_time(channel.since)}"] if channel.since else []
    counts += [f"{channel.given_up} given up after a week"] if channel.given_up else []
    tries = f" ({channel.attempts} attempts: {channel.error})" if channel.error else ""
    return one_line(f"channel {channel.name}: {', '.join(counts)}{tries}")


def format_time(moment: datetime) -> str:
    """A time in the local time zone, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _build_table(alarms: Sequence[Alarm]) -> Table:
    table = Table("id", "severity", "state", "what", "times", "since", "last", "assignee", box=None)
    for a in alarms:
        times = (str(a.count), format_time(a.first_at), format_time(a.last_at))
        what = f"{one_line(a.title)}\n{one_line(a.cause)}"
        table.add_row(str(a.id), a.severity, _state_text(a), what, *times, one_line(a.assignee or ""))
    return table


def _print_record(alarm: Alarm, terminal: Terminal) -> None:
    head = f"{alarm.id:<{_INDENT - 1}} {alarm.severity}, {_state_text(alarm)}"
    times = f"{alarm.count} times, since {format_time(alarm.first_at)}, last {format_time(alarm.last_at)}"
    assignee = f", {one_line(alarm.assignee)}'s" if alarm.assignee else ""
    for line in (head, f"{' ' * _INDENT}{times}{assignee}"):
        terminal.print(line, soft_wrap=True, highlight=False)
    for text in (one_line(alarm.title), one_line(alarm.cause)):
        if terminal.is_terminal:
            terminal.print(Padding(Text(text), (0, 0, 0, _INDENT)))
        else:
            terminal.print(f"{' ' * _INDENT}{text}", soft_wrap=True, highlight=False)


def _state_text(alarm: Alarm) -> str:
    return alarm.state + (", flapping" if alarm.flapping else "") + (", silenced" if alarm.silenced else "")
