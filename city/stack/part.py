"""Starts, watches, restarts and stops a part of the running platform: one process."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

State = Literal["running", "starting", "restarting", "down", "external", "done"]
UP: frozenset[State] = frozenset({"running", "external", "done"})
"""The states of a part that does, or has done, what it is there for."""
_RESTART_SECONDS = (0.5, 1, 2, 5, 10, 30)
_STEADY_SECONDS = 60  # after this run time the next restart has the shortest wait again


class CannotStart(RuntimeError):
    """A part cannot start. The message names the obstacle and the fix."""


@dataclass(frozen=True)
class Spec:
    """Declares how a part is started, when it is ready and how it is stopped. The highest `stage` stops first."""

    name: str
    address: str
    argv: list[str] = field(default_factory=list)
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None
    ready: Callable[[], bool] = lambda: True
    after: frozenset[str] = frozenset()
    """The parts that are up before this one starts, by name. A name of no part has no effect."""
    after_seconds: float = 180.0
    """The part starts so long after the first ones, even if those before it are not up."""
    stage: int = 0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_session: bool = False
    """Whether the stop signal also goes to the processes that the part started."""
    stop_seconds: float = 15.0
    ports: Mapping[str, int] = field(default_factory=dict)
    """The ports that the part listens on, by the setting that changes each."""
    host: str = "127.0.0.1"
    """The address of this machine that the ports are bound to."""
    loopback_ports: frozenset[str] = frozenset()
    """Settings of the ports that are always bound to 127.0.0.1."""
    host_setting: str = ""
    exposes: str = ""
    """What anybody can do who reaches the part, where it has no password."""
    once: bool = False
    """Whether the part is done when it ends with code 0. It is not started again then."""
    loops: Mapping[str, str] = field(default_factory=dict)
    """The address of each loop in the part that has a heartbeat of its own, by the heartbeat's name."""

    @property
    def bindings(self) -> list[tuple[str, str, int]]:
        """(setting, host, port) of each port that the part listens on."""
        return [
            (setting, "127.0.0.1" if setting in self.loopback_ports else self.host, port)
            for setting, port in self.ports.items()
        ]


class Part:
    """Runs the process of a Spec. Only the supervisor's thread calls it."""

    def __init__(self, spec: Spec, logs: Path) -> None:
        self.spec = spec
        self.log = logs / f"{spec.name}.log"
        self.state: State = "down" if spec.argv else "external"
        self.last_error: str | None = None
        self.restarts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log_begin = 0
        self._started: float | None = None
        self._again_at = 0.0
        self._failures = 0

    @property
    def is_started(self) -> bool:
        """Whether the part was started, or is external."""
        return self._started is not None or self.state == "external"

    @property
    def pid(self) -> int | None:
        """The id of the process, or None where it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Starts the process, in a session of its own, so that a terminal's Ctrl-C reaches only the supervisor.

        Where it cannot be started now, as on a full disk, it is started again later.
        """
        self._started, self._process = time.monotonic(), None
        self.state = "restarting" if self.restarts else "starting"
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.spec.prepare()
            with self.log.open("ab") as output:
                self._log_begin = output.tell()
                self._process = subprocess.Popen(
                    self.spec.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | dict(self.spec.environment),
                    start_new_session=True,
                )
        except OSError as error:
            self._start_later(f"cannot be started: {error}")

    def watch(self) -> None:
        """Updates `state`, and starts the process again when it has ended and its wait is over."""
        if self.state == "done" or not self.is_started or not self.spec.argv:
            return
        if self._again_at:
            if time.monotonic() >= self._again_at:
                self._again_at = 0.0
                self.restarts += 1
                self.start()
            return
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            if self.state != "running" and self.spec.ready():
                self.state = "running"
            elif self.state == "running" and self._run_seconds() > _STEADY_SECONDS:
                self.last_error = None
        elif code == 0 and self.spec.once:
            self.state, self.last_error = "done", None
        else:
            end_session(self._process.pid)  # its remaining child processes may occupy its ports, or repeat its work
            self._start_later(self._describe_end(code))

    def _start_later(self, reason: str) -> None:
        """Sets the time of the next start. It is later after each failure in a row."""
        self._failures = 0 if self._run_seconds() > _STEADY_SECONDS else self._failures
        self._again_at = time.monotonic() + _RESTART_SECONDS[min(self._failures, len(_RESTART_SECONDS) - 1)]
        self._failures += 1
        self.state, self.last_error = "restarting", reason

    def _run_seconds(self) -> float:
        return time.monotonic() - (self._started or 0.0)

    def _describe_end(self, code: int) -> str:
        """Describes how the process ended, with its last words where it could write some.

        A process that is killed writes nothing, so the last line of its log is not about its end.
        """
        words = last_line(self.log, self._log_begin) if code != -signal.SIGKILL else ""
        return f"{describe_exit(code)}; its log {self.log}" + (f" ends: {words}" if words else " does not say why")

    def signal(self) -> None:
        """Sends the stop signal to the process."""
        if self.pid is None:
            return
        os.kill(self.pid, self.spec.stop_signal)
        for process in session(self.pid) if self.spec.stop_session else []:
            if process.pid != self.pid:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(self.spec.stop_signal)

    def await_stop(self) -> None:
        """Waits at most `stop_seconds` for the end of the process, then ends the rest of its session."""
        if self._process is None:
            return
        try:
            self._process.wait(self.spec.stop_seconds)
        except subprocess.TimeoutExpired:
            self.last_error = f"did not stop within {self.spec.stop_seconds:g} s and was killed"
        end_session(self._process.pid, seconds=min(5.0, self.spec.stop_seconds))
        self._process.wait()
        self.state = "down"


def end_session(pid: int, seconds: float = 0.0) -> None:
    """Ends every process of the session that `pid` leads or led, as `end_sessions` does."""
    end_sessions([pid], seconds)


def end_sessions(pids: Iterable[int], seconds: float = 0.0) -> None:
    """Ends every process of the sessions that `pids` lead or led, all at once.

    With `seconds` the processes get SIGTERM and this time to end; without, they are killed at once.
    """
    processes = [process for pid in pids for process in session(pid)]
    for process in processes if seconds else []:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(processes, timeout=seconds)[1]:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def session(pid: int) -> list[psutil.Process]:
    """Returns the living processes of the session that `pid` leads or led."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    return processes


def describe_exit(code: int) -> str:
    """Describes the exit code of a process in words."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def last_line(log: Path, begin: int = 0) -> str:
    """Returns the last line after the byte `begin` of a log that is not empty, or "" where there is none."""
    try:
        with log.open("rb") as file:
            size = log.stat().st_size
            file.seek(max(begin if begin <= size else 0, size - 8192))  # a log can be cut off while a part runs
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def listener(port: int) -> str | None:
    """Describes the process that listens on a TCP port of this machine; None where none does."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            try:
                name = psutil.Process(connection.pid).name() if connection.pid else "another user's process"
            except psutil.Error:
                name = "a process"
            return f"{name} (pid {connection.pid})" if connection.pid else name
    return None


def check_port(host: str, port: int, setting: str) -> None:
    """Raises CannotStart, with the process that uses the port, where a server cannot bind to the address now."""
    if not can_bind(host, port):
        user = listener(port) or "another process"
        raise CannotStart(f"port {port} is in use by {user}: stop that, or set {setting} to a free port")


def can_bind(host: str, port: int) -> bool:
    """Returns whether a server can bind to the address now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
