"""What Prometheus reads at /metrics."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from city.drift.comparisons import newest_comparisons
from city.lake.snapshot import Snapshot
from city.settings import Settings
from city.stack.status import silent_sources, stream_part, workers_by_part
from city.stack.worker import summaries

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_DRIFT_SECONDS = 30.0
_RECENT_SECONDS, _RECENT_LEAST = 300.0, 20


@dataclass(frozen=True)
class Champion:
    """A champion, and its metrics by where they come from."""

    model: str
    version: int
    metrics: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class AlarmFigures:
    """How many alarms are active, by severity, and how many messages wait, by channel."""

    active: Mapping[str, int]
    waiting: Mapping[str, int]


@dataclass(frozen=True)
class _Count:
    """Of a model, since the server began."""

    answers: float = 0.0
    seconds: float = 0.0
    errors: float = 0.0

    def since(self, before: "_Count") -> "_Count":
        return _Count(self.answers - before.answers, self.seconds - before.seconds, self.errors - before.errors)


class Metrics:
    """The server's own counters, and what the platform says of itself at the moment it is asked."""

    def __init__(self, config: Settings) -> None:
        self.registry = CollectorRegistry()
        self._latency = Histogram(
            "prediction_latency_seconds",
            "From a request's arrival to its answer.",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._requests = Counter(
            "prediction_requests_total", "Predictions asked for.", ["model", "version", "role"], registry=self.registry
        )
        self.errors = Counter(
            "prediction_errors_total", "Requests that got no prediction.", ["model", "status"], registry=self.registry
        )
        self.clients = Gauge("websocket_clients", "Who listens to /ws/stream.", registry=self.registry)
        self.dropped = Counter(
            "websocket_dropped_total", "Clients let go because they did not read.", registry=self.registry
        )
        self._performance = Gauge(
            "model_performance_score",
            "A champion's metrics: of held-out rows when it was trained (held_out), of the day's outcomes in the lake "
            "(outcomes), and of those that came by /feedback, the newest 1,000 (recent) and the last hour's (hour).",
            ["model", "version", "metric", "of"],
            registry=self.registry,
        )
        self._feature_age = Gauge(
            "feature_age_seconds", "Since the newest time in the online store.", ["view"], registry=self.registry
        )
        self._alarms = Gauge("alarms_active", "Alarms that are active.", ["severity"], registry=self.registry)
        self._waiting = Gauge(
            "alarm_messages_waiting",
            "Messages of alarms that a channel has not taken yet.",
            ["channel"],
            registry=self.registry,
        )
        self._counts: deque[tuple[float, dict[str, _Count]]] = deque()
        self._held: dict[tuple[str, int, str], tuple[Any, Any]] = {}
        self.registry.register(_Platform(config))

    def text(self, champions: Iterable[Champion], feature_ages: Mapping[str, float], alarms: AlarmFigures) -> bytes:
        """All of it; `feature_ages` are seconds by feature view."""
        figures: list[tuple[Gauge, Mapping[str, float]]] = [
            (self._feature_age, feature_ages),
            (self._alarms, alarms.active),
            (self._waiting, alarms.waiting),
        ]
        for gauge, values in figures:
            gauge.clear()
            for label, value in values.items():
                gauge.labels(label).set(value)
        self._performance.clear()
        for champion in champions:
            for of, metrics in champion.metrics.items():
                for name, value in metrics.items():
                    self._performance.labels(champion.model, champion.version, name, of).set(value)
        return generate_latest(self.registry)

    def recent(self, now: float) -> dict[str, float | None]:
        """`model.error_rate.<model>` and `model.answer_ms.<model>` of the last five minutes, for rules: the share of
        requests that the server failed, and the mean time to an answer. None of a model that was asked less than twenty
        times."""
        counts = self._count()
        self._counts.append((now, counts))
        while now - self._counts[0][0] > _RECENT_SECONDS and len(self._counts) > 1:
            self._counts.popleft()
        before = self._counts[0][1]
        found: dict[str, float | None] = {}
        for model, count in counts.items():
            since = count.since(before.get(model, _Count()))
            asked = since.answers + since.errors
            enough = asked >= _RECENT_LEAST
            found[f"model.error_rate.{model}"] = since.errors / asked if enough else None
            answered = enough and since.answers
            found[f"model.answer_ms.{model}"] = 1000 * since.seconds / since.answers if answered else None
        return found

    def _count(self) -> dict[str, "_Count"]:
        found: dict[str, _Count] = {}
        for (metric,), names in (
            (list(self._latency.collect()), {"_sum": "seconds", "_count": "answers"}),
            (list(self.errors.collect()), {"_total": "errors"}),
        ):
            for sample in metric.samples:
                ending = next((names[end] for end in names if sample.name.endswith(end)), None)
                if ending is None or sample.labels.get("status", "500") != "500":
                    continue  # what a client got wrong, or what has no champion yet, is no failure
                held = found.get(sample.labels["model"], _Count())
                value = getattr(held, ending) + sample.value
                found[sample.labels["model"]] = replace(held, **{ending: value})
        return found

    def answered(self, model: str, version: int, role: str, seconds: float) -> None:
        at = (model, version, role)
        held = self._held.get(at)
        if held is None:  # looking a label up costs more than counting
            held = self._held[at] = (self._latency.labels(model), self._requests.labels(model, version, role))
        held[0].observe(seconds)
        held[1].inc()


class _Platform(Collector):
    def __init__(self, config: Settings) -> None:
        self._config = config
        self._drift: list[tuple[str, str, str, float]] = []
        self._drift_at = float("-inf")

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        stream = stream_part(self._config, False, {}) or {"streams": {}}
        for name, means in (
            ("lag", "Events in Kafka that are not in bronze."),
            ("events_per_second", "Events that came to bronze."),
            ("p95_ms", "95th percentile of the time from an event to bronze."),
            ("quarantined", "Events that were rejected, since the stream was started."),
        ):
            family = GaugeMetricFamily(f"stream_{name}", means, labels=["topic"])
            for topic, found in stream["streams"].items():
                if found[name] is not None:
                    family.add_metric([topic], found[name])
            yield family
        yield from self._workers()
        if time.monotonic() > self._drift_at + _DRIFT_SECONDS:
            self._drift, self._drift_at = newest_drift(self._config), time.monotonic()
        family = GaugeMetricFamily(
            "data_drift_score", "The effect size of the newest comparison.", labels=["view", "feature", "measure"]
        )
        for view, feature, measure, effect in self._drift:
            family.add_metric([view, feature, measure], effect)
        yield family

    def _workers(self) -> Iterator[Metric]:
        """Of this process as they are, and of the others as their files have them."""
        labels, now = ["part", "worker"], time.time()
        running = GaugeMetricFamily("worker_running", "1 while a background loop runs.", labels=labels)
        restarts = CounterMetricFamily("worker_restarts_total", "After an error.", labels=labels)
        items = CounterMetricFamily("worker_items_total", "What a background loop has handled.", labels=labels)
        progress = GaugeMetricFamily(
            "worker_last_progress_seconds", "Since a background loop last went round.", labels=labels
        )
        for part, workers in (workers_by_part(self._config) | {"server": summaries()}).items():
            for worker in workers:
                at = [part, worker["name"]]
                running.add_metric(at, float(worker["state"] == "running"))
                restarts.add_metric(at, worker["restarts"])
                items.add_metric(at, worker["items"])
                progress.add_metric(at, max(0.0, now - (worker["last_progress"] or worker["began"])))
        yield from (running, restarts, items, progress)
        stalled = GaugeMetricFamily(
            "source_stalled", "1 for a source that fell silent while its peers go on.", labels=["source"]
        )
        for source in silent_sources(self._config):
            stalled.add_metric([source], 1.0)
        yield stalled


def newest_drift(config: Settings) -> list[tuple[str, str, str, float]]:
    """View, feature, measure and effect of each view's newest comparison with its reference."""
    rows = newest_comparisons(Snapshot(config.lake))
    return list(rows.select("view", "feature", "measure", pl.col("effect").fill_null(0.0)).iter_rows())
