"""Starts all parts, keeps them running, and stops only the processes that it started."""

import fcntl
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO

import psutil

from city.settings import Settings
from city.stack.external import check_logins
from city.stack.home import check_home
from city.stack.part import UP, CannotStart, Part, Spec, can_bind, check_port, end_sessions
from city.stack.state import SUPERVISOR, identity, is_alive, leftovers, read_json

log = logging.getLogger(__name__)

_START_SECONDS, _ROUND_SECONDS = 0.1, 0.5  # between two looks at the parts, while some wait for others and later
_LEFTOVER_SECONDS = 10.0  # for a stage of leftovers to end by itself


class Supervisor:
    """Runs the parts of one `city up` in the main thread. A signal handler may set `stop`."""

    def __init__(self, config: Settings, parts: list[Spec]) -> None:
        self.config = config
        self.parts = [Part(spec, config.logs) for spec in parts]
        self.stop = threading.Event()
        self._lock: IO[str] | None = None

    def check(self) -> None:
        """Ends the processes that a killed `up` left behind, and checks that the parts can start.

        Raises CannotStart where another `up` runs, CITY_HOME cannot be written to, its disk is full, an address is not
        of this machine, a port is in use, or an external server refuses the login.
        """
        check_home(self.config)
        state = read_json(self.config, SUPERVISOR)
        if state and is_alive(state["pid"], state["created"]):
            raise CannotStart(f"already up (pid {state['pid']}): see `city status`, end it with `city down`")
        end_leftovers(self.config)
        used: dict[int, str] = {}
        for part in self.parts:
            if part.spec.argv and not can_bind(part.spec.host, 0):
                raise CannotStart(f"{part.spec.host_setting}: {part.spec.host} is no address of this machine")
            for setting, host, port in part.spec.bindings:
                if part.spec.argv and used.setdefault(port, setting) != setting:
                    raise CannotStart(f"{used[port]} and {setting} are both {port}")
                if part.spec.argv:
                    check_port(host, port, setting)
        check_logins(self.config)
        self._lock_home()

    def _lock_home(self) -> None:
        """Lets one supervisor run in a home. The lock ends with this object, or with its process."""
        self._lock = (self.config.run / f".{SUPERVISOR}.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart("another `city up` starts now: see `city status`, end it with `city down`") from None

    def run(self, changed: Callable[["Supervisor"], None] = lambda supervisor: None) -> None:
        """Starts each part once those before it are up, watches them until `stop`, and stops them stage by stage.

        Calls `changed` after each round of the watch.
        """
        began = time.monotonic()
        try:
            while True:
                self._start_due_parts(time.monotonic() - began)
                self._watch_parts(changed)
                if self.stop.wait(_ROUND_SECONDS if all(part.is_started for part in self.parts) else _START_SECONDS):
                    break
        finally:
            self.shut_down(changed)

    def is_ready(self) -> bool:
        """Returns whether every part runs, or is external."""
        return all(part.state in UP for part in self.parts)

    def shut_down(self, changed: Callable[["Supervisor"], None] = lambda supervisor: None) -> None:
        """Stops the parts, the last stage first, and calls `changed` after each stage."""
        self.stop.set()
        self._write_state()  # its `stopping` tells readers that parts are missing on purpose from now on
        for stage in sorted({part.spec.stage for part in self.parts}, reverse=True):
            for part in self._parts_of_stage(stage):
                part.signal()
            for part in self._parts_of_stage(stage):
                part.await_stop()
            changed(self)
        (self.config.run / SUPERVISOR).unlink(missing_ok=True)

    def _parts_of_stage(self, stage: int) -> list[Part]:
        return [part for part in self.parts if part.spec.stage == stage]

    def _start_due_parts(self, seconds: float) -> None:
        """Starts the parts whose turn it is, `seconds` after the first ones."""
        missing = {part.spec.name for part in self.parts if part.state not in UP}
        for part in self.parts:
            if not part.is_started and (not part.spec.after & missing or seconds > part.spec.after_seconds):
                part.start()
                self._write_state()  # after a kill, the next `up` knows from it which processes are left

    def _watch_parts(self, changed: Callable[["Supervisor"], None]) -> None:
        for part in self.parts:
            part.watch()
        self._write_state()
        changed(self)

    def _write_state(self) -> None:
        content = {
            **identity(),
            "at": time.time(),
            "stopping": self.stop.is_set(),
            "parts": {part.spec.name: _describe_part(part, self.stop.is_set()) for part in self.parts},
        }
        try:
            _replace_state(self.config, content)
        except OSError as error:
            # A full disk must not end the city, which continues once there is space.
            log.warning("cannot write %s: %s", self.config.run / SUPERVISOR, error)


def _replace_state(config: Settings, content: Mapping[str, object]) -> None:
    config.run.mkdir(parents=True, exist_ok=True)
    fresh = config.run / f".{SUPERVISOR}"
    fresh.write_text(json.dumps(content))
    fresh.replace(config.run / SUPERVISOR)


def end_leftovers(config: Settings) -> list[str]:
    """Ends the processes that a killed supervisor left behind, by the ids in its state file. Returns their names.

    The last stage ends first, as in `shut_down`, so that no part loses what it has not sent yet.
    """
    processes = leftovers(config)
    state = read_json(config, SUPERVISOR)
    if state is not None and processes:
        # The server judges the parts until it ends. It reads from this that they end on purpose.
        _replace_state(config, state | identity() | {"stopping": True})
        stages = {name: state["parts"][name].get("stage", 0) for name in processes}
        for stage in sorted({*stages.values()}, reverse=True):
            end_sessions([pid for name, pid in processes.items() if stages[name] == stage], _LEFTOVER_SECONDS)
    (config.run / SUPERVISOR).unlink(missing_ok=True)
    return list(processes)


def _describe_part(part: Part, is_stopping: bool) -> dict[str, object]:
    pid = part.pid
    try:
        created = psutil.Process(pid).create_time() if pid else None
    except psutil.Error:
        pid = created = None
    return {
        "address": part.spec.address,
        "loops": dict(part.spec.loops),
        "stage": part.spec.stage,
        "state": part.state if part.is_started or is_stopping else "starting",
        "pid": pid,
        "created": created,
        "restarts": part.restarts,
        "last_error": part.last_error,
    }
