"""The full names of the metrics that rules can be about, derived from the declarations of the domains."""

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
    | {"stream", "history", "registry", "disk", "supervisor"}
)
"""The parts with a metric `system.failing.<part>`, besides the simulators of single domains."""
_STREAM_METRICS = ("lag", "p95_ms", "events_per_second", "quarantined")
_CLASS_SCORES = ("accuracy", "precision", "recall", "f1")
_OUTCOME_SCORES: dict[Kind, tuple[str, ...]] = {
    "regression": ("mae", "coverage"),
    "classification": (*_CLASS_SCORES, "calibration_error"),
    "anomaly": ("surprise",),
}
_LIVE_SCORES: dict[Kind, tuple[str, ...]] = {
    "regression": ("mae",),
    "classification": _CLASS_SCORES,
    "anomaly": ("mae",),
}
_MODEL_METRICS = ("outcomes", "latency_p95_ms", "version", "champion", "error_rate", "answer_ms")
_VIEW_METRICS = ("features_stale", "feature_age_s")


def declared_metrics(config: Settings) -> frozenset[str]:
    """The metrics of all domains, also of inactive ones, because a file of rules may be used for several cities."""
    return _collect_metrics(tuple(config.extra_domains))


@lru_cache(maxsize=4)
def _collect_metrics(extra_domains: tuple[Path, ...]) -> frozenset[str]:
    """The metrics, cached: the declarations do not change while a process runs."""
    # A copy is not validated: a folder that has vanished since the start must not end the evaluation of the rules.
    config = Settings(extra_domains=[], domains=[]).model_copy(update={"extra_domains": [*extra_domains]})
    all_domains = domains(config)
    streams = [contract for domain in all_domains for contract in domain.contracts if contract.rate == "high"]
    simulators = {f"simulator-{domain.name}" for domain in all_domains if domain.has_simulator}
    metrics = {"stream.alive", "system.disk_free_gb", "system.disk_free_share"}
    metrics |= {f"stream.{name}.{contract.topic}" for contract in streams for name in _STREAM_METRICS}
    sources = {"mqtt-bridge", "simulators", "server"} | simulators | {contract.topic for contract in streams}
    metrics |= {f"source.stalled.{source}" for source in sources}
    metrics |= {f"quality.{contract.name}" for contract in streams}
    for name, model in models([model for domain in all_domains for model in models_of(domain)]).items():
        live = {f"{span}_{score}" for span in ("recent", "hour") for score in (*_LIVE_SCORES[model.kind], "outcomes")}
        metrics |= {f"model.{metric}.{name}" for metric in {*_MODEL_METRICS, *_OUTCOME_SCORES[model.kind], *live}}
    metrics |= {f"model.{metric}.{view}" for view in views() for metric in _VIEW_METRICS}
    metrics |= {f"system.failing.{part}" for part in PARTS | simulators}
    metrics |= {f"domain.active.{condition.domain}.{condition.kind}" for condition in conditions(config)}
    return frozenset(metrics)


def is_declared(metric: str, declared: Iterable[str]) -> bool:
    """Whether a metric is declared. For one that ends in *: whether any declared metric begins so."""
    if metric.endswith("*"):
        return any(name.startswith(metric[:-1]) for name in declared)
    return metric in declared


@lru_cache(maxsize=64)
def nearest(metric: str, declared: frozenset[str]) -> str:
    """The declared metric with the most similar name. For one that ends in *: the most similar beginning, with *."""
    names = {_wildcard_of(name, metric) for name in declared} if metric.endswith("*") else declared
    return max(sorted(names), key=lambda name: difflib.SequenceMatcher(None, metric, name).ratio())


def _wildcard_of(name: str, metric: str) -> str:
    """The beginning of a name, with *: as many words, between dots, as the metric has."""
    *whole, last = metric.split(".")
    words = name.split(".")
    return ".".join([*words[: len(whole)], "*"]) if last == "*" else ".".join(words[: len(whole) + 1]) + "*"
