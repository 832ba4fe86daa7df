"""The whole names of the metrics that rules can be about, as they follow from what domains declare."""

import difflib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from city.alerts.conditions import conditions
from city.contracts.registry import domains
from city.features.views import views
from city.models.labels import Kind
from city.models.model import models, models_of
from city.settings import Settings

PARTS = frozenset(
    {"kafka", "questdb", "mqtt", "mqtt-bridge", "simulators", "server", "dagster-code", "dagster-daemon", "dagster"}
    | {"stream", "registry", "disk"}
)
"""Of which there is `system.failing.<part>`, besides simulators of a domain each."""
_OF_STREAMS = ("lag", "p95_ms", "events_per_second", "quarantined")
_OF_CLASSES = ("accuracy", "precision", "recall", "f1")
_OF_OUTCOMES: dict[Kind, tuple[str, ...]] = {
    "regression": ("mae", "coverage"),
    "classification": (*_OF_CLASSES, "calibration_error"),
    "anomaly": ("surprise",),
}
_LIVE: dict[Kind, tuple[str, ...]] = {"regression": ("mae",), "classification": _OF_CLASSES, "anomaly": ("mae",)}
_OF_ALL_MODELS = ("outcomes", "latency_p95_ms", "version", "champion", "error_rate", "answer_ms")
_OF_VIEWS = ("features_stale", "feature_age_s")


def declared_metrics(config: Settings) -> frozenset[str]:
    """Of all domains, also of those that are not active: a file of rules may serve several cities."""
    return _declared(tuple(config.extra_domains))


@lru_cache(maxsize=4)
def _declared(extra_domains: tuple[Path, ...]) -> frozenset[str]:
    """What is declared does not change while a process runs."""
    config = Settings(extra_domains=[*extra_domains], domains=[])
    known = domains(config)
    streams = [contract for domain in known for contract in domain.contracts if contract.rate == "high"]
    simulators = {f"simulator-{domain.name}" for domain in known if domain.has_simulator}
    found = {"stream.alive", "system.disk_free_gb", "system.disk_free_share"}
    found |= {f"stream.{name}.{contract.topic}" for contract in streams for name in _OF_STREAMS}
    sources = {"mqtt-bridge", "simulators", "server"} | simulators | {contract.topic for contract in streams}
    found |= {f"source.stalled.{source}" for source in sources}
    found |= {f"quality.{contract.name}" for contract in streams}
    for name, model in models([model for domain in known for model in models_of(domain)]).items():
        live = {f"{span}_{score}" for span in ("recent", "hour") for score in (*_LIVE[model.kind], "outcomes")}
        found |= {f"model.{metric}.{name}" for metric in {*_OF_ALL_MODELS, *_OF_OUTCOMES[model.kind], *live}}
    found |= {f"model.{metric}.{view}" for view in views() for metric in _OF_VIEWS}
    found |= {f"system.failing.{part}" for part in PARTS | simulators}
    found |= {f"domain.active.{condition.domain}.{condition.kind}" for condition in conditions(config)}
    return frozenset(found)


def is_declared(metric: str, known: Iterable[str]) -> bool:
    """Whether a metric, or where it ends in * any that begins so, is among the known ones."""
    if metric.endswith("*"):
        return any(name.startswith(metric[:-1]) for name in known)
    return metric in known


@lru_cache(maxsize=64)
def nearest(metric: str, known: frozenset[str]) -> str:
    """The known metric whose name is most like this one; of one that ends in *, the known beginning."""
    names = {_beginning(name, metric) for name in known} if metric.endswith("*") else known
    return max(sorted(names), key=lambda name: difflib.SequenceMatcher(None, metric, name).ratio())


def _beginning(name: str, metric: str) -> str:
    """As many words of a name, between dots, as the metric has."""
    *whole, last = metric.split(".")
    words = name.split(".")
    return ".".join([*words[: len(whole)], "*"]) if last == "*" else ".".join(words[: len(whole) + 1]) + "*"
