"""The metrics that Prometheus reads at /metrics."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

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
_STREAM_METRICS: tuple[tuple[Literal["lag", "events_per_second", "p95_ms", "quarantined"], str], ...] = (
    ("lag", "Events in Kafka that are not in bronze."),
    ("events_per_second", "Events written to bronze."),
    ("p95_ms", "95th percentile of the time from an event to bronze."),
    ("quarantined", "Events that were rejected, since the stream was started."),
)


@dataclass(frozen=True)
class Champion:
    """A champion, and its metrics by their origin (the label `of` of `model_performance_score`) and name."""

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
    """The counts of a model since the server began: answers, seconds that they took together, and errors."""

    answers: float = 0.0
    seconds: float = 0.0
    errors: float = 0.0

    def since(self, before: "_Count") -> "_Count":
        """The difference from an earlier count."""
        return _Count(self.answers - before.answers, self.seconds - before.seconds, self.errors - before.errors)


class Metrics:
    """The server's own counters, and the current metrics of the platform, which are collected at each request."""

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
            "prediction_requests_total",
            "Requested predictions.",
            ["model", "version", "role"],
            registry=self.registry,
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
            "A champion's metrics: of held-out rows when it was trained (held_out), of the lake's newest day with "
            "outcomes (outcomes), of those sent to /feedback, the newest 1,000 (recent) and the last hour's (hour).",
            ["model", "version", "metric", "of"],
            registry=self.registry,
        )
        self._feature_age = Gauge(
            "feature_age_seconds", "Since the newest time in the online store.", ["view"], registry=self.registry
        )
        self._alarms = Gauge("alarms_active", "Alarms that are active.", ["severity"], registry=self.registry)
        self._waiting = Gauge(
            "alarm_messages_waiting",
            "Messages of alarms that a channel has not accepted yet.",
            ["channel"],
            registry=self.registry,
        )
        self._counts: deque[tuple[float, dict[str, _Count]]] = deque()
        self._children: dict[tuple[str, int, str], tuple[Histogram, Counter]] = {}
        self.registry.register(_PlatformCollector(config))

    def text(self, champions: Iterable[Champion], feature_ages: Mapping[str, float], alarms: AlarmFigures) -> bytes:
        """All metrics in Prometheus' text format. `feature_ages` are seconds by feature view."""
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
            for origin, metrics in champion.metrics.items():
                for name, value in metrics.items():
                    self._performance.labels(champion.model, champion.version, name, origin).set(value)
        return generate_latest(self.registry)

    def recent(self, now: float) -> dict[str, float | None]:
        """The metrics `model.error_rate.<model>` and `model.answer_ms.<model>` of the last five minutes, for rules.

        They are the share of requests that failed by the server's fault, and the mean time to an answer in
        milliseconds. Both are None for a model with fewer than twenty requests. `now` is in seconds since the epoch.
        """
        counts = self._counts_by_model()
        self._counts.append((now, counts))
        while now - self._counts[0][0] > _RECENT_SECONDS and len(self._counts) > 1:
            self._counts.popleft()
        before = self._counts[0][1]
        metrics: dict[str, float | None] = {}
        for model, count in counts.items():
            since = count.since(before.get(model, _Count()))
            requests = since.answers + since.errors
            enough = requests >= _RECENT_LEAST
            metrics[f"model.error_rate.{model}"] = since.errors / requests if enough else None
            answered = enough and since.answers
            metrics[f"model.answer_ms.{model}"] = 1000 * since.seconds / since.answers if answered else None
        return metrics

    def _counts_by_model(self) -> dict[str, "_Count"]:
        counts: dict[str, _Count] = {}
        for (metric,), names in (
            (list(self._latency.collect()), {"_sum": "seconds", "_count": "answers"}),
            (list(self.errors.collect()), {"_total": "errors"}),
        ):
            for sample in metric.samples:
                ending = next((names[end] for end in names if sample.name.endswith(end)), None)
                if ending is None or sample.labels.get("status", "500") != "500":
                    continue  # a client's error, or a model without a champion, is no failure of the server
                count = counts.get(sample.labels["model"], _Count())
                value = getattr(count, ending) + sample.value
                counts[sample.labels["model"]] = replace(count, **{ending: value})
        return counts

    def answered(self, model: str, version: int, role: str, seconds: float) -> None:
        """Counts a prediction that took so many seconds."""
        labels = (model, version, role)
        children = self._children.get(labels)
        if children is None:  # to look a label up costs more than to count
            children = self._children[labels] = (
                self._latency.labels(model),
                self._requests.labels(model, version, role),
            )
        children[0].observe(seconds)
        children[1].inc()


class _PlatformCollector(Collector):
    """Collects the metrics of the stream, the workers, the sources and the drift."""

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._drift: list[tuple[str, str, str, float]] = []
        self._drift_at = float("-inf")

    def describe(self) -> list[Metric]:
        """No metrics in advance, so that the registry collects none when this collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics of the platform at this moment."""
        stream = stream_part(self._config, False, {})
        streams = stream["streams"] if stream else {}
        for name, description in _STREAM_METRICS:
            family = GaugeMetricFamily(f"stream_{name}", description, labels=["topic"])
            for topic, report in streams.items():
                if (value := report[name]) is not None:
                    family.add_metric([topic], value)
            yield family
        yield from self._collect_workers()
        if time.monotonic() > self._drift_at + _DRIFT_SECONDS:
            self._drift, self._drift_at = newest_drift(self._config), time.monotonic()
        family = GaugeMetricFamily(
            "data_drift_score", "The effect size of the newest comparison.", labels=["view", "feature", "measure"]
        )
        for view, feature, measure, effect in self._drift:
            family.add_metric([view, feature, measure], effect)
        yield family

    def _collect_workers(self) -> Iterator[Metric]:
        """The metrics of this process's workers, of other processes' workers by their files, and of silent sources."""
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
    """The newest comparison of each view with its reference, as rows of view, feature, measure and effect."""
    rows = newest_comparisons(Snapshot(config.lake))
    return list(rows.select("view", "feature", "measure", pl.col("effect").fill_null(0.0)).iter_rows())
