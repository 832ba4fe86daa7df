"""What a person sees of `up`, `down` and `status`."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from city.java import jars
from city.settings import Settings
from city.stack.part import Spec
from city.stack.state import SUPERVISOR, is_alive, read_json
from city.stack.status import parts, status
from city.stack.supervisor import SIMULATORS, CannotStart, Supervisor, end_leftovers, exposures, specs
from city.stack.terminal import Terminal, description_column, one_line

_COLOURS = {"running": "green", "external": "cyan", "starting": "yellow", "restarting": "red", "down": "red"}
_REFRESH_SECONDS = 5.0
_DETACH_SECONDS = 300
_COUNT_SECONDS = 30.0


def up(config: Settings, rate: float | None, simulators: bool) -> None:
    """Runs in the foreground until SIGINT or SIGTERM."""
    console = Terminal(soft_wrap=True)
    wanted = specs(config, simulators, rate)
    supervisor = Supervisor(config, wanted)
    supervisor.check()
    _warn(wanted, console)
    # A handler, whatever was inherited: a shell's background job has SIGINT ignored, and would hand that on.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: supervisor.stop.set())
    fetch(config, console)
    view = _View(config, console)
    supervisor.run(view.show)
    console.print("stopped")


def _warn(wanted: Sequence[Spec], console: Terminal) -> None:
    for warning in exposures(wanted):
        console.print(f"warning: {warning}", style="yellow")


def detach(config: Settings, rate: float | None, simulators: bool) -> None:
    """Starts `city up` in the background and waits until every part runs."""
    console = Terminal(soft_wrap=True)
    wanted = specs(config, simulators, rate)
    Supervisor(config, wanted).check()
    _warn(wanted, console)
    fetch(config, console)
    command = [sys.executable, "-m", "city.cli.main", "up", *(["--rate", str(rate)] if rate else [])]
    command += [] if simulators else ["--no-simulators"]
    command += [word for name in config.domains for word in ("--domain", name)]
    config.logs.mkdir(parents=True, exist_ok=True)
    log = config.logs / "up.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    with console.status("starting") as shown:
        deadline = time.monotonic() + _DETACH_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise CannotStart(f"it ended at once; its log {log} says why")
            found = status(config)
            waiting = [name for name, part in found["parts"].items() if part["state"] not in ("running", "external")]
            if found["parts"] and not waiting:
                break
            shown.update(Text(f"starting {', '.join(waiting)}"))
            time.sleep(1)
    show(status(config), console)


def down(config: Settings) -> None:
    console = Terminal(soft_wrap=True)
    state = read_json(config, SUPERVISOR)
    if state is None:
        console.print("nothing to stop: it is not up")
        return
    if not is_alive(state["pid"], state["created"]):
        ended = end_leftovers(config)
        console.print(f"`city up` had been killed; stopped what it left: {', '.join(ended) or 'nothing'}")
        return
    os.kill(state["pid"], signal.SIGTERM)
    with console.status("stopping"):
        while is_alive(state["pid"], state["created"]):
            time.sleep(0.2)
    console.print("stopped")


def fetch(config: Settings, console: Terminal) -> None:
    """Brings the jars of the servers that will be started, with a progress bar."""
    servers = [] if config.kafka_address else ["kafka"]
    servers += [] if config.questdb_address else ["questdb"]
    absent = jars.missing(config, servers)
    if not absent:
        return
    console.print(f"fetching {len(absent)} jars, once, into {config.jars}")
    columns = (description_column(), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("jars", total=len(absent))
        jars.fetch(config, absent, lambda jar: progress.update(task, advance=1, description=jar.coordinate))


def show(found: dict[str, Any], console: Terminal | None = None) -> None:
    """The status as tables."""
    console = console or Terminal(soft_wrap=True)
    if not found["parts"]:
        console.print("not up; start it with `city up`")
    else:
        console.print(_parts_table(found["parts"]))
        for name, part in found["parts"].items():
            if part["last_error"]:
                console.print(Text.assemble((name, "yellow"), f": {one_line(part['last_error'])}"))
    for channel, reason in found.get("alarm_channels", {}).items():
        console.print(Text.assemble((f"alarm channel {channel}", "yellow"), f": {one_line(reason)}"))
    table = Table("topic", "rows in bronze", "quarantined", box=None, pad_edge=False)
    for topic, rows in found["bronze_rows"].items():
        table.add_row(topic, f"{rows:,}", f"{found['quarantined'][topic]:,}")
    for name in found["quarantined"].keys() - found["bronze_rows"].keys():
        table.add_row(name, "", f"{found['quarantined'][name]:,}")
    console.print(table)


def _parts_table(parts: dict[str, dict[str, Any]]) -> Table:
    table = Table("part", "address", "state", "events/s", "lag", "p95 ms", box=None, pad_edge=False)
    for name, part in parts.items():
        state = Text(part["state"], style=_COLOURS[part["state"]])
        figures = [_figure(part[key]) for key in ("events_per_second", "lag", "p95_ms")]
        table.add_row(name, part["address"], state, *figures)
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


class _View:
    """Says each change of state in a line; shows the table once everything runs, and on a terminal keeps it fresh."""

    def __init__(self, config: Settings, console: Terminal) -> None:
        self._config, self._console = config, console
        self._states: dict[str, str] = {}
        self._complete = False
        self._ready = False
        self._shown = 0.0
        self._began = time.monotonic()
        self._counting: subprocess.Popen[bytes] | None = None
        self._counted: dict[str, Any] = {}
        self._counted_at = 0.0

    def show(self, supervisor: Supervisor) -> None:
        for part in supervisor.parts:
            if self._states.get(part.spec.name, "down") != part.state:
                self._states[part.spec.name] = part.state
                took = time.monotonic() - self._began
                state = (part.state, _COLOURS[part.state])
                self._console.print(Text.assemble(f"{took:6.1f} s  {part.spec.name} ", state))
                if part.state == "restarting" and part.last_error:
                    self._console.print(f"          {one_line(part.last_error)}", highlight=False)
        if supervisor.stop.is_set():
            return
        self._ready = supervisor.is_ready()
        self._count()
        if time.monotonic() - self._shown < _REFRESH_SECONDS:
            return
        if not self._complete and self._ready and self._flowing():
            self._complete = True
            self._print(f"\nup after {time.monotonic() - self._began:.1f} s; Ctrl-C stops it\n")
        elif self._complete and self._console.is_terminal:
            self._print("")

    def _flowing(self) -> bool:
        self._shown = time.monotonic() - _REFRESH_SECONDS + 1
        found = parts(self._config)
        return found.get("stream", {}).get("state") == "running" and (
            any(self._counted.get("bronze_rows", {}).values()) or (bool(self._counted) and SIMULATORS not in found)
        )

    def _count(self) -> None:
        """Counts the tables' rows in a process of its own, now and then: what reads them takes more memory than all
        else in this one, which runs for as long as the city."""
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

    def _print(self, head: str) -> None:
        self._shown = time.monotonic()
        if self._console.is_terminal and not head:
            self._console.clear()
        if head:
            self._console.print(head, highlight=False)
        show(self._counted | {"parts": parts(self._config)}, self._console)
