"""The sensor that turns Dagster's records (checks, runs, freshness, scores) into alarms, and notifies people."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import dagster as dg

from city.alerts.dispatch import deliver
from city.alerts.store import OVERVIEW, AlertStore, alert_store
from city.alerts.watch import PlatformWatch, share
from city.dagster_internals import BaseAssetGraph
from city.features.freshness import FeatureFreshness
from city.models.model import models
from city.models.registry import CHAMPION, Registry
from city.settings import Settings, settings
from city_assets.monitoring.checks import CHECKS, Overview, check_findings, overview
from city_assets.monitoring.daily_quality import latest_scores
from city_assets.monitoring.freshness import FRESH, freshness_findings, freshness_of
from city_assets.monitoring.runs import RunCursor, run_findings
from city_assets.monitoring.ticks import TICKS, tick_findings
from city_assets.streaming import stream_job

log = logging.getLogger(__name__)

_BEGUN = time.monotonic()  # the start of the code location, which starts together with all other processes
_START_SECONDS = 90.0
_RUNS = "runs"
_FIRST_RUNS = timedelta(hours=1)


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Raises and clears alarms of failing checks, runs and sensors, and of stale tables; notifies people.",
)
def watch_data(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Reads Dagster's records, updates the alarm store, and delivers its messages. Requests no run."""
    if time.monotonic() - _BEGUN < _START_SECONDS:
        return dg.SkipReason("everything is still starting")
    config = settings()
    assert context.repository_def is not None
    store, instance, graph = alert_store(config), context.instance, context.repository_def.asset_graph
    looks: dict[str, Callable[[], object]] = {
        "checks": lambda: _report_checks(instance, graph, config, store),
        "freshness": lambda: _report_freshness(instance, graph, store),
        "runs": lambda: _report_runs(instance, config, store),
        "ticks": lambda: store.sync_findings(tick_findings(instance), TICKS),
        "quality": lambda: share(store, "quality", latest_scores(config.lake)),
        "champions": lambda: share(store, "champions", champion_metrics(Registry(config))),
        "platform": lambda: _watch_platform(config),
        "messages": lambda: deliver(store, config),
    }
    failed = []
    for name, look in looks.items():
        try:
            look()
        except Exception as error:  # a failure of one must not stop the others
            log.exception("alarms: cannot evaluate %s", name)
            failed.append(f"{name}: {error}")
    return dg.SkipReason("; ".join(failed) or f"{sum(alarm.active for alarm in store.alarms())} alarms are active")


def _report_checks(instance: dg.DagsterInstance, graph: BaseAssetGraph, config: Settings, store: AlertStore) -> None:
    details = {alarm.cause: alarm.detail or {} for alarm in store.alarms() if alarm.active}
    checks = check_findings(instance, graph.asset_check_keys, details)
    before: Overview | None = store.remembered(OVERVIEW)
    checks_overview = overview(checks, before or {}, f"http://{config.dagster}")
    store.sync_findings(checks, CHECKS, remember={OVERVIEW: checks_overview})


def _report_freshness(instance: dg.DagsterInstance, graph: BaseAssetGraph, store: AlertStore) -> None:
    store.sync_findings(freshness_findings(instance, freshness_of(graph)), FRESH)


def _report_runs(instance: dg.DagsterInstance, config: Settings, store: AlertStore) -> None:
    stored = store.remembered(_RUNS)
    cursor = RunCursor.from_content(stored) if stored else RunCursor(datetime.now(UTC) - _FIRST_RUNS)
    # The stream has its own report, and its run is replaced at once, so its job is left out.
    findings, next_cursor = run_findings(instance, cursor, f"http://{config.dagster}", [stream_job.name])
    if next_cursor != cursor:
        store.sync_findings(findings, remember={_RUNS: next_cursor.content()})


def champion_metrics(registry: Registry) -> dict[str, float | None]:
    """Returns the metric `model.champion.<model>` of each model that has had a champion.

    The value is 1 if the model has a champion now, and 0 if not.
    """
    metrics: dict[str, float | None] = {}
    for model in models():
        versions = registry.versions(model)
        if any("promoted" in version.tags for version in versions):
            metrics[f"model.champion.{model}"] = float(any(CHAMPION in version.aliases for version in versions))
    return metrics


def _watch_platform(config: Settings) -> None:
    """Watches the platform if no server does."""
    watch = _open_watch(config.home)
    try:
        watch.look()
    finally:
        watch.close()  # gives way to a server that starts, which looks more often


@cache
def _open_watch(home: Path) -> PlatformWatch:
    """Returns the watch of a CITY_HOME. It is cached, so that the sensor opens the store once."""
    config = settings()
    return PlatformWatch(config, alert_store(config), own=FeatureFreshness(config).metrics)
