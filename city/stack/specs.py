"""Declares the parts of the platform: which process each is, after which others it starts, and when it is ready."""

import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from city.contracts.registry import check_unknown_ids, domains, streamed
from city.net import accepts, is_loopback, reached_at
from city.settings import Settings
from city.sources.registry import feeds_of, sources
from city.stack import servers
from city.stack.dagster import dagster
from city.stack.history_plan import is_finished, make_plan, why_no_history
from city.stack.history_progress import HISTORY
from city.stack.part import CannotStart, Spec
from city.stack.state import STREAM, STREAM_PART, process_of, read_json

BRIDGE = "mqtt-bridge"
SIMULATORS = "simulators"
COLD = "cold-storage"
_READY_SECONDS = 5.0
"""A part whose report is younger is ready."""


def specs(config: Settings, simulators: bool = True, rate: float | None = None) -> list[Spec]:
    """Returns the spec of every part of the platform, for the active domains.

    `rate` is the simulators' rate in events a second. Raises CannotStart where CITY_DOMAINS names an unknown domain,
    and ContractError or SourceError where another setting names what nobody declares.
    """
    names = [domain.name for domain in domains(config)]
    if unknown := sorted(set(config.domains) - set(names)):
        raise CannotStart(f"CITY_DOMAINS: no domain {', '.join(unknown)}; known: {', '.join(names)}")
    check_unknown_ids(config)
    mapped = sources(config)
    feeds_of(mapped, config)
    active = [domain for domain in domains(config) if config.is_active(domain.name)]
    environment = {"CITY_DOMAINS": json.dumps(config.domains)}
    city = [sys.executable, "-m", "city.cli.main"]
    simulated = [domain for domain in active if domain.has_simulator] if simulators else []
    parts = [servers.kafka(config), servers.questdb(config)]
    # Before the stream, which reads in its plan whether there is a history to wait for.
    if simulated and (history := _history_spec(config, [*city, "history", "run"], environment)):
        parts.append(history)
    if streamed(config):
        parts.append(_stream_spec(config, [*city, "stream", "--wait"], environment))
    declared = [contract for domain in active for contract in domain.contracts]
    has_mqtt = any(contract.mqtt for contract in declared) or any(source.mqtt for source in mapped)
    if has_mqtt or mapped:
        bridge = [*city, "bridge"]
        parts += [
            *([servers.mqtt(config)] if has_mqtt else []),
            _heartbeat_spec(config, BRIDGE, bridge, environment, f"{config.mqtt} → {config.kafka}"),
        ]
    if config.is_cold_on_s3:
        parts.append(Spec(COLD, f"{config.cold_path} ({config.cold_server})"))
    if simulated:
        argv = [*city, "simulate", *(domain.name for domain in simulated), *(["--rate", str(rate)] if rate else [])]
        loops = {f"simulator-{domain.name}": domain.contracts[0].topic for domain in simulated}
        # They start at once, and themselves wait for Kafka: the city's streets take a second to compute.
        parts.append(replace(_heartbeat_spec(config, SIMULATORS, argv, environment, "", loops), after=frozenset()))
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
        return beat is not None and beat["at"] > max(started, time.time() - _READY_SECONDS)

    environment = servers.python(config) | environment
    return Spec(
        name,
        address,
        argv,
        environment,
        ready=ready,
        after=frozenset({"kafka", "mqtt"}),
        stage=1,
        stop_seconds=10,
        loops=loops,
    )


def _stream_spec(config: Settings, argv: list[str], environment: dict[str, str]) -> Spec:
    """Returns the spec of the stream. It is ready when a process streams, whoever started that.

    It starts at once, and itself waits for Kafka and for the newest part of the history.
    """

    def ready() -> bool:
        report = read_json(config, STREAM)
        return process_of(report) is not None and report is not None and time.time() - report["at"] < _READY_SECONDS

    return Spec(
        STREAM_PART,
        f"{config.kafka} → {config.lake}",
        argv,
        servers.python(config) | environment,
        ready=ready,
        stage=2,
        stop_seconds=25,
    )


def _history_spec(config: Settings, argv: list[str], environment: dict[str, str]) -> Spec | None:
    """Returns the spec of the process that makes the history of a new city. Returns None where none is to be made."""
    if why_no_history(config) or is_finished(config):
        return None

    def prepare() -> None:
        make_plan(config)

    environment = servers.python(config) | environment
    return Spec(HISTORY, "", argv, environment, prepare=prepare, once=True, stop_seconds=5)


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
