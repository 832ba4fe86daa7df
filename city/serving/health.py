"""What the server depends on, and whether each of it is well."""

from dataclasses import dataclass

from city.net import accepts, split_address
from city.serving.predictor import Predictor
from city.stack.status import stream_part


@dataclass(frozen=True)
class Dependency:
    """`needed`: without it no prediction can be answered. The others make parts of the pages empty."""

    name: str
    ok: bool
    needed: bool
    detail: str


def dependencies(predictor: Predictor) -> list[Dependency]:
    """Asks each; at most a second for each that is away."""
    config, versions, store = predictor.config, predictor.versions, predictor.store
    stream = stream_part(config, True) or {"state": "down", "last_error": None}
    running = stream["state"] == "running"
    return [
        Dependency(
            "registry", versions.away is None, True, versions.away or f"champions of {len(versions.champions())} models"
        ),
        _listens("kafka", config.kafka),
        _listens("questdb", config.questdb),
        Dependency("stream", running, False, stream["last_error"] or stream["state"]),
        Dependency(
            "prediction store",
            store.error is None,
            False,
            store.error or f"{store.written:,} recorded, {store.waiting:,} wait",
        ),
        _listens("dagster", config.dagster),
    ]


def _listens(name: str, address: str) -> Dependency:
    here = accepts(*split_address(address))
    return Dependency(name, here, False, f"listens at {address}" if here else f"nothing listens at {address}")
