"""The terminal output of `up`, `down` and `status`."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from city.java import jars
from city.settings import Settings
from city.stack.history_progress import history_status
from city.stack.history_view import HistoryLines, build_history_line
from city.stack.part import UP, CannotStart, Spec
from city.stack.reports import PartStatus, PlatformStatus
from city.stack.specs import SIMULATORS, exposures, specs
from city.stack.state import SUPERVISOR, is_alive, leftovers, read_json
from city.stack.status import parts, status
from city.stack.supervisor import Supervisor, end_leftovers
from city.stack.terminal import Terminal, description_column, one_line
from city.stack.unknown_settings import unknown_settings

_COLOURS = {
    "running": "green",
    "external": "cyan",
    "done": "green",
    "starting": "yellow",
    "restarting": "red",
    "down": "red",
}
_REFRESH_SECONDS = 5.0
_DETACH_SECONDS = 300
_COUNT_SECONDS = 30.0


def up(config: Settings, rate: float | None, simulators: bool) -> None:
    """Runs the platform in the foreground until SIGINT or SIGTERM. Raises CannotStart."""
    console = Terminal(soft_wrap=True)
    part_specs = specs(config, simulators, rate)
    supervisor = Supervisor(config, part_specs)
    _print_leftovers(config, console)
    supervisor.check()
    print_warnings(part_specs, console)
    # A shell starts a background job with SIGINT ignored, and the parts would inherit that. So a handler is set here.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: supervisor.stop.set())
    fetch(config, console)
    view = _View(config, console)
    supervisor.run(view.show)
    console.print("stopped")


def _print_leftovers(config: Settings, console: Terminal) -> None:
    if processes := leftovers(config):
        console.print(f"ending the processes that a killed `city up` left: {', '.join(processes)}")


def print_warnings(part_specs: Sequence[Spec], console: Terminal) -> None:
    """Prints what a person should know before the parts start: open addresses and names that are no settings."""
    for warning in exposures(part_specs):
        console.print(f"warning: {warning}", style="yellow")
    for name, meant in unknown_settings().items():
        advice = f": did you mean {meant}?" if meant else ""
        console.print(f"warning: {name} is ignored, because there is no such setting{advice}", style="yellow")


def detach(config: Settings, rate: float | None, simulators: bool) -> None:
    """Starts `city up` in the background and waits until every part runs. Raises CannotStart."""
    console = Terminal(soft_wrap=True)
    part_specs = specs(config, simulators, rate)
    _print_leftovers(config, console)
    Supervisor(config, part_specs).check()
    print_warnings(part_specs, console)
    fetch(config, console)
    command = [sys.executable, "-m", "city.cli.main", "up", *(["--rate", str(rate)] if rate else [])]
    command += [] if simulators else ["--no-simulators"]
    command += [word for name in config.domains for word in ("--domain", name)]
    config.logs.mkdir(parents=True, exist_ok=True)
    with (config.logs / "up.log").open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        late = wait_for_parts(config, process, console)
    except KeyboardInterrupt:
        console.print("`city up` goes on in the background; `city down` stops it")
        raise
    show(status(config), console)
    if late:
        raise CannotStart(
            f"still not running after {_DETACH_SECONDS} s: {', '.join(late)}. The logs are in {config.logs}. "
            "`city up` goes on and keeps trying; `city down` stops it"
        )


def wait_for_parts(
    config: Settings, process: subprocess.Popen[bytes], console: Terminal, seconds: float = _DETACH_SECONDS
) -> list[str]:
    """Waits until every part of `process`, a supervisor, runs. Returns the parts that do not run after `seconds`.

    Raises CannotStart when the process ends.

    A terminal shows a spinner. Other outputs, such as a service's log, get a line for each change.
    """
    shown, deadline = "", time.monotonic() + seconds
    with console.status("starting") as spinner:
        while True:
            if process.poll() is not None:
                raise CannotStart(f"`city up` ended before every part ran; its log {config.logs / 'up.log'} says why")
            waiting = [n for n, part in parts(config).items() if part["state"] not in UP]
            # Before it has written its file there may be parts that others started.
            if (read_json(config, SUPERVISOR) or {}).get("pid") != process.pid:
                waiting = ["the supervisor"]
            if not waiting or time.monotonic() > deadline:
                return waiting
            progress = f"starting {', '.join(waiting)}"
            if progress != shown:
                spinner.update(Text(progress))
                if not console.is_terminal:
                    console.print(progress)
            shown = progress
            time.sleep(1)


def down(config: Settings) -> None:
    """Stops a running platform and waits for its end. Ends the processes that a killed `city up` left behind."""
    console = Terminal(soft_wrap=True)
    state = read_json(config, SUPERVISOR)
    if state is None:
        console.print("nothing to stop: it is not up")
        return
    if not is_alive(state["pid"], state["created"]):
        _print_leftovers(config, console)
        ended = end_leftovers(config)
        console.print(
            "stopped" if ended else "nothing to stop: `city up` was killed, and none of its processes is left"
        )
        return
    os.kill(state["pid"], signal.SIGTERM)
    with console.status("stopping"):
        while is_alive(state["pid"], state["created"]):
            time.sleep(0.2)
    console.print("stopped")


def fetch(config: Settings, console: Terminal) -> None:
    """Downloads the missing jars of the servers that will be started, with a progress bar."""
    servers = [] if config.kafka_address else ["kafka"]
    servers += [] if config.questdb_address else ["questdb"]
    absent = jars.missing(config, servers)
    if not absent:
        return
    console.print(f"fetching {len(absent)} jars, once, into {jars.folder(config)}")
    columns = (description_column(), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("jars", total=len(absent))
        jars.fetch(config, absent, lambda jar: progress.update(task, advance=1, description=jar.coordinate))


def show(state: PlatformStatus, console: Terminal | None = None) -> None:
    """Prints the status as tables."""
    console = console or Terminal(soft_wrap=True)
    if not state["parts"]:
        console.print("not up; start it with `city up`")
    else:
        console.print(_build_parts_table(state["parts"]))
        for name, part in state["parts"].items():
            if part["last_error"]:
                console.print(Text.assemble((name, "yellow"), f": {one_line(part['last_error'])}"))
    if processes := state.get("leftovers"):
        remains = ", ".join(f"{name} (pid {pid})" for name, pid in processes.items())
        console.print(
            f"`city up` was killed and left these processes, which nobody supervises: {remains}. `city up` ends them "
            "and starts the city again; `city down` ends them."
        )
    for channel, reason in state.get("alarm_channels", {}).items():
        console.print(Text.assemble((f"alarm channel {channel}", "yellow"), f": {one_line(reason)}"))
    if history := state.get("history"):
        console.print(build_history_line(history, console))
    table = Table("topic", "rows in bronze", "quarantined", box=None, pad_edge=False)
    for topic, rows in state["bronze_rows"].items():
        table.add_row(topic, f"{rows:,}", f"{state['quarantined'][topic]:,}")
    for name in state["quarantined"].keys() - state["bronze_rows"].keys():
        table.add_row(name, "", f"{state['quarantined'][name]:,}")
    console.print(table)


def _build_parts_table(parts: dict[str, PartStatus]) -> Table:
    table = Table("part", "address", "state", "events/s", "lag", "p95 ms", box=None, pad_edge=False)
    for name, part in parts.items():
        state = Text(part["state"], style=_COLOURS[part["state"]])
        figures = [_format_figure(part[key]) for key in ("events_per_second", "lag", "p95_ms")]
        table.add_row(name, part["address"], state, *figures)
    return table


def _format_figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


class _View:
    """Prints each change of a part's state in a line, and the progress of the history.

    Shows the status tables once every part runs. On a terminal it then refreshes them.
    """

    def __init__(self, config: Settings, console: Terminal) -> None:
        self._config, self._console = config, console
        self._states: dict[str, str] = {}
        self._history_lines = HistoryLines()
        self._complete = False
        self._ready = False
        self._shown_at = 0.0
        self._began = time.monotonic()
        self._counting: subprocess.Popen[bytes] | None = None
        self._counted: PlatformStatus | None = None
        self._counted_at = 0.0

    def show(self, supervisor: Supervisor) -> None:
        """Prints the changes since the last call. The supervisor calls it at each of its rounds."""
        for part in supervisor.parts:
            if self._states.get(part.spec.name, "down") != part.state:
                self._states[part.spec.name] = part.state
                seconds = time.monotonic() - self._began
                state = (part.state, _COLOURS[part.state])
                self._console.print(Text.assemble(f"{seconds:6.1f} s  {part.spec.name} ", state))
                if part.state == "restarting" and part.last_error:
                    self._console.print(f"          {one_line(part.last_error)}", highlight=False)
        if supervisor.stop.is_set():
            return
        self._show_history()
        self._ready = supervisor.is_ready()
        self._count_rows()
        if time.monotonic() - self._shown_at < _REFRESH_SECONDS:
            return
        if not self._complete and self._ready and self._has_events():
            self._complete = True
            self._print_status(f"\nup after {time.monotonic() - self._began:.1f} s; Ctrl-C stops it\n")
        elif self._complete and self._console.is_terminal:
            self._print_status("")

    def _show_history(self) -> None:
        line = self._history_lines.next_line(history_status(self._config))
        # The status page of a terminal, which replaces all lines, has a bar of its own.
        if line and not (self._complete and self._console.is_terminal):
            self._console.print(f"{time.monotonic() - self._began:6.1f} s  {line}", highlight=False)

    def _has_events(self) -> bool:
        """Returns whether the stream runs and bronze has rows, or nothing simulates events."""
        self._shown_at = time.monotonic() - _REFRESH_SECONDS + 1
        current, counted = parts(self._config), self._counted
        if counted is None or "stream" not in current or current["stream"]["state"] != "running":
            return False
        return any(counted["bronze_rows"].values()) or SIMULATORS not in current

    def _count_rows(self) -> None:
        """Counts the tables' rows from time to time, in another process.

        The libraries that read the tables take more memory than all the rest of this process, which runs as long as the
        platform.
        """
        if self._counting is None:
            wait = 1 if not self._complete else _COUNT_SECONDS if self._console.is_terminal else math.inf
            if self._ready and time.monotonic() - self._counted_at > wait:
                self._counting = subprocess.Popen(
                    [sys.executable, "-m", "city.cli.main", "status", "--json"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=os.environ | {"CITY_DOMAINS": json.dumps(self._config.domains)},
                )
        elif self._counting.poll() is not None:
            output, _ = self._counting.communicate()
            if self._counting.returncode == 0:
                self._counted = json.loads(output)
            self._counting, self._counted_at = None, time.monotonic()

    def _print_status(self, head: str) -> None:
        self._shown_at = time.monotonic()
        if self._console.is_terminal and not head:
            self._console.clear()
        if head:
            self._console.print(head, highlight=False)
        assert self._counted is not None  # nothing is shown before bronze has rows
        current: PlatformStatus = {**self._counted, "parts": parts(self._config)}
        show({**current, "history": history_status(self._config)}, self._console)
