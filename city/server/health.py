"""The dependencies of the server, and whether each of them works."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from city import questdb
from city.kafka import KafkaServer
from city.net import accepts, split_address
from city.serving.predictor import Predictor
from city.settings import Settings
from city.stack.daemon import DAEMON
from city.stack.status import parts, silent_sources, stream_part, workers_by_part
from city.stack.worker import complaints, summaries


@dataclass(frozen=True)
class Dependency:
    """A server or a part that the server depends on. Without a `needed` one no prediction is possible. Without another
    one, parts of the pages are empty."""

    name: str
    ok: bool
    needed: bool
    detail: str


def check_dependencies(predictor: Predictor, failing_channels: Mapping[str, str]) -> list[Dependency]:
    """Checks each dependency. This takes at most two seconds for each that is unavailable. `failing_channels` are the
    alarm channels that do not accept messages, with the reason."""
    config, store = predictor.config, predictor.store
    silent = silent_sources(config)
    stream = stream_part(config, True, silent)
    assert stream is not None  # it is None only while the platform is down
    is_stream_ok = stream["state"] == "running" and stream["last_error"] is None
    worker_problems = {
        f"{part}: {worker}": text
        for part, workers in (workers_by_part(config) | {"server": summaries()}).items()
        for worker, text in complaints(workers, time.time()).items()
    }
    return [
        *check_servers(config, predictor),
        *check_daemon(config),
        Dependency("stream", is_stream_ok, False, stream["last_error"] or stream["state"]),
        Dependency(
            "prediction store",
            store.error is None,
            False,
            store.error or f"{store.written_rows:,} recorded, {store.waiting_rows:,} wait",
        ),
        Dependency("workers", not worker_problems, False, _join_texts(worker_problems) or "all run"),
        Dependency(
            "alarm channels", not failing_channels, False, _join_texts(failing_channels) or "all messages are taken"
        ),
        Dependency("sources", not silent, False, _join_texts(silent) or "none fell silent while its peers go on"),
    ]


def check_servers(config: Settings, predictor: Predictor) -> list[Dependency]:
    """The servers of the platform. They have the names of the parts that run them."""
    return [
        check_registry(predictor),
        _check_kafka(config.kafka),
        _check_questdb(config.questdb),
        _check_port("dagster", config.dagster),
    ]


def check_daemon(config: Settings) -> list[Dependency]:
    """Dagster's daemon, by its heartbeats; empty where no `city up` runs it. It is not one of the `servers`, which are
    checked by a request, because its status is in the parts."""
    part = parts(config).get(DAEMON)
    if part is None:
        return []
    error = "; ".join(part["errors"])
    return [Dependency(DAEMON, part["state"] == "running" and not error, False, error or part["state"])]


def check_registry(predictor: Predictor) -> Dependency:
    """The model registry, the only dependency that is needed. This sends no request."""
    versions = predictor.versions
    detail = versions.registry_error or f"champions of {len(versions.champions())} models"
    return Dependency("registry", versions.registry_error is None, True, detail)


def _join_texts(complaints: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in complaints.items())


def _check_kafka(kafka: KafkaServer) -> Dependency:
    complaint = kafka.complaint()
    return Dependency("kafka", complaint is None, False, complaint or f"answers at {kafka}")


def _check_questdb(server: questdb.QuestDBServer) -> Dependency:
    """Checks QuestDB by a query, because a process that hangs still listens."""
    try:
        questdb.execute(server, "SELECT 1", seconds=1.0)
    except (OSError, questdb.QuestDBError) as error:
        return Dependency("questdb", False, False, f"no answer from {server}: {error}")
    return Dependency("questdb", True, False, f"answers at {server}")


def _check_port(name: str, address: str) -> Dependency:
    listens = accepts(*split_address(address))
    return Dependency(name, listens, False, f"listens at {address}" if listens else f"nothing listens at {address}")
