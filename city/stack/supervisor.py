"""Starts all parts, keeps them running, and stops only the processes that it started."""

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import psutil

from city.contracts.registry import domains
from city.net import accepts, is_loopback, reached_at
from city.settings import Settings
from city.stack import servers
from city.stack.dagster import dagster
from city.stack.part import CannotStart, Part, Spec, can_bind, check_port, end_sessions
from city.stack.state import SUPERVISOR, identity, is_alive, leftovers, read_json

BRIDGE = "mqtt-bridge"
SIMULATORS = "simulators"
_READY_SECONDS = 180
_LEFTOVER_SECONDS = 10.0  # for a stage of leftovers to end by itself


def specs(config: Settings, simulators: bool = True, rate: float | None = None) -> list[Spec]:
    """Returns the spec of every part of the platform, for the active domains.

    `rate` is the simulators' rate in events a second. Raises CannotStart where CITY_DOMAINS names an unknown domain.
    """
    names = [domain.name for domain in domains(config)]
    if unknown := sorted(set(config.domains) - set(names)):
        raise CannotStart(f"CITY_DOMAINS: no domain {', '.join(unknown)}; known: {', '.join(names)}")
    active = [domain for domain in domains(config) if config.is_active(domain.name)]
    environment = {"CITY_DOMAINS": json.dumps(config.domains)}
    city = [sys.executable, "-m", "city.cli.main"]
    parts = [servers.kafka(config), servers.questdb(config)]
    if any(contract.mqtt for domain in active for contract in domain.contracts):
        bridge = [*city, "bridge"]
        parts += [
            servers.mqtt(config),
            _heartbeat_spec(config, BRIDGE, bridge, environment, config.mqtt + " → " + config.kafka),
        ]
    simulated = [domain for domain in active if domain.has_simulator] if simulators else []
    if simulated:
        argv = [*city, "simulate", *(domain.name for domain in simulated), *(["--rate", str(rate)] if rate else [])]
        loops = {f"simulator-{domain.name}": domain.contracts[0].topic for domain in simulated}
        parts.append(_heartbeat_spec(config, SIMULATORS, argv, environment, "", loops))
    return [*parts, _server_spec(config, [*city, "serve"], environment), *dagster(config, environment)]


def _heartbeat_spec(
    config: Settings,
    name: str,
    argv: list[str],
    environment: dict[str, str],
    address: str,
    loops: Mapping[str, str] = MappingProxyType({}),
) -> Spec:
    """Returns the spec of a process with a heartbeat. The process is ready when its heartbeat is fresh."""
    started = time.time()

    def ready() -> bool:
        beat = read_json(config, f"{name}.json")
        return beat is not None and beat["at"] > max(started, time.time() - 5)

    environment = servers.python(config) | environment
    return Spec(name, address, argv, environment, ready=ready, stage=1, stop_seconds=10, loops=loops)


def _server_spec(config: Settings, argv: list[str], environment: dict[str, str]) -> Spec:
    return Spec(
        "server",
        config.serve,
        argv,
        servers.python(config) | environment,
        ready=lambda: accepts(reached_at(config.host), config.serve_port),
        stage=2,
        stop_signal=signal.SIGINT,
        stop_seconds=25,
        ports={"CITY_SERVE_PORT": config.serve_port},
        host=config.host,
        host_setting="CITY_HOST",
    )


def exposures(parts: Sequence[Spec]) -> list[str]:
    """Returns a warning for each server without a password that other machines can reach."""
    return [
        f"{spec.host_setting}={spec.host}: whoever reaches {spec.name} there can {spec.exposes}, without a password. "
        "Let a firewall admit only those who may"
        for spec in parts
        if spec.argv and spec.exposes and not is_loopback(spec.host)
    ]


class Supervisor:
    """Runs the parts of one `city up` in the main thread. A signal handler may set `stop`."""

    def __init__(self, config: Settings, parts: list[Spec]) -> None:
        self.config = config
        self.parts = [Part(spec, config.logs) for spec in parts]
        self.stop = threading.Event()

    def check(self) -> None:
        """Ends the processes that a killed `up` left behind, and checks that the parts can start.

        Raises CannotStart where another `up` runs, an address is not of this machine, or a port is in use.
        """
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

    def run(self, changed: Callable[["Supervisor"], None] = lambda supervisor: None) -> None:
        """Starts the parts stage by stage, watches them until `stop`, and stops them in the opposite order.

        Calls `changed` after each round of the watch.
        """
        try:
            for stage in sorted({part.spec.stage for part in self.parts}):
                for part in self._parts_of_stage(stage):
                    if part.state != "external":
                        part.start()
                        self._write_state()  # after a kill, the next `up` knows from it which processes are left
                self._await_ready(stage, changed)
            while not self.stop.wait(0.5):
                self._watch_parts(changed)
        finally:
            self.shut_down(changed)

    def is_ready(self) -> bool:
        """Returns whether every part runs, or is external."""
        return all(part.state in ("running", "external") for part in self.parts)

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

    def _await_ready(self, stage: int, changed: Callable[["Supervisor"], None]) -> None:
        last = max(part.spec.stage for part in self.parts)
        deadline = time.monotonic() + _READY_SECONDS
        while not self.stop.is_set() and time.monotonic() < deadline:
            self._watch_parts(changed)
            # The last stage is slow to start, and nothing waits for it: events already flow.
            if stage == last or all(part.state in ("running", "external") for part in self._parts_of_stage(stage)):
                return
            self.stop.wait(0.2)

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
            "parts": {part.spec.name: _describe_part(part) for part in self.parts},
        }
        _replace_state(self.config, content)


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


def _describe_part(part: Part) -> dict[str, object]:
    pid = part.pid
    try:
        created = psutil.Process(pid).create_time() if pid else None
    except psutil.Error:
        pid = created = None
    return {
        "address": part.spec.address,
        "loops": dict(part.spec.loops),
        "stage": part.spec.stage,
        "state": part.state,
        "pid": pid,
        "created": created,
        "restarts": part.restarts,
        "last_error": part.last_error,
    }
