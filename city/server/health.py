"""What the server depends on, and whether each of it is well."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from city import questdb
from city.net import accepts, speaks_kafka, split_address
from city.serving.predictor import Predictor
from city.settings import Settings
from city.stack.daemon import DAEMON
from city.stack.status import parts, silent_sources, stream_part, workers_by_part
from city.stack.worker import complaints, summaries


@dataclass(frozen=True)
class Dependency:
    """`needed`: without it no prediction can be answered. The others make parts of the pages empty."""

    name: str
    ok: bool
    needed: bool
    detail: str


def dependencies(predictor: Predictor, away_channels: Mapping[str, str]) -> list[Dependency]:
    """Asks each; at most two seconds for each that is away. `away_channels` are those of alarms, with the reason."""
    config, store = predictor.config, predictor.store
    silent = silent_sources(config)
    stream = stream_part(config, True, silent) or {"state": "down", "last_error": None}
    well = stream["state"] == "running" and stream["last_error"] is None
    unwell = {
        f"{part}: {worker}": text
        for part, workers in (workers_by_part(config) | {"server": summaries()}).items()
        for worker, text in complaints(workers, time.time()).items()
    }
    return [
        *servers(config, predictor),
        *daemon(config),
        Dependency("stream", well, False, stream["last_error"] or stream["state"]),
        Dependency(
            "prediction store",
            store.error is None,
            False,
            store.error or f"{store.written:,} recorded, {store.waiting:,} wait",
        ),
        Dependency("workers", not unwell, False, _listed(unwell) or "all run"),
        Dependency("alarm channels", not away_channels, False, _listed(away_channels) or "all messages are taken"),
        Dependency("sources", not silent, False, _listed(silent) or "none fell silent while its peers go on"),
    ]


def servers(config: Settings, predictor: Predictor) -> list[Dependency]:
    """The servers that the platform is made of; named as the parts are that run them."""
    return [
        registry(predictor),
        _kafka(config.kafka),
        _answers(config.questdb),
        _listens("dagster", config.dagster),
    ]


def daemon(config: Settings) -> list[Dependency]:
    """Dagster's daemon, by its heartbeats; none where no `city up` runs it. Not among the servers that are asked: the
    parts tell of it."""
    part = parts(config).get(DAEMON)
    if part is None:
        return []
    error = "; ".join(part["errors"])
    return [Dependency(DAEMON, part["state"] == "running" and not error, False, error or part["state"])]


def registry(predictor: Predictor) -> Dependency:
    """The one that is needed. Asks nothing."""
    versions = predictor.versions
    detail = versions.away or f"champions of {len(versions.champions())} models"
    return Dependency("registry", versions.away is None, True, detail)


def _listed(complaints: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in complaints.items())


def _kafka(address: str) -> Dependency:
    here = speaks_kafka(*split_address(address))
    return Dependency("kafka", here, False, f"answers at {address}" if here else f"no Kafka answers at {address}")


def _answers(address: str) -> Dependency:
    """Of QuestDB: a process that hangs still listens."""
    try:
        questdb.execute(address, "SELECT 1", seconds=1.0)
    except (OSError, questdb.QuestDBError) as error:
        return Dependency("questdb", False, False, f"no answer from {address}: {error}")
    return Dependency("questdb", True, False, f"answers at {address}")


def _listens(name: str, address: str) -> Dependency:
    here = accepts(*split_address(address))
    return Dependency(name, here, False, f"listens at {address}" if here else f"nothing listens at {address}")
