"""Looks at what Dagster knows (checks, runs, freshness, scores), makes alarms of it, and tells people."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import dagster as dg

from city.alerts.dispatch import deliver
from city.alerts.store import OVERVIEW, AlertStore, alert_store
from city.alerts.watch import Watch, share
from city.dagster_internals import BaseAssetGraph
from city.features.freshness import FeatureFreshness
from city.models.model import models
from city.models.registry import CHAMPION, Registry
from city.settings import Settings, settings
from city_assets.monitoring.alarms import (
    CHECKS,
    FRESH,
    RunCursor,
    check_findings,
    freshness_findings,
    freshness_of,
    overview,
    run_findings,
)
from city_assets.monitoring.quality import latest_scores
from city_assets.streaming import stream_job

log = logging.getLogger(__name__)

_BEGUN = time.monotonic()  # of the code location, which starts with all the rest
_START_SECONDS = 90.0
_RUNS = "runs"
_FIRST_RUNS = timedelta(hours=1)


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes alarms of failing checks, failed runs and old tables, clears what is over, and tells people.",
)
def watch_data(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    if time.monotonic() - _BEGUN < _START_SECONDS:
        return dg.SkipReason("everything is still starting")
    config = settings()
    assert context.repository_def is not None
    known, instance, graph = alert_store(config), context.instance, context.repository_def.asset_graph
    looks: dict[str, Callable[[], object]] = {
        "checks": lambda: _report_checks(instance, graph, config, known),
        "freshness": lambda: _report_freshness(instance, graph, known),
        "runs": lambda: _report_runs(instance, config, known),
        "quality": lambda: share(known, "quality", latest_scores(config.lake)),
        "champions": lambda: share(known, "champions", champion_metrics(Registry(config))),
        "platform": lambda: _look(config),
        "messages": lambda: deliver(known, config),
    }
    failed = []
    for name, look in looks.items():
        try:
            look()
        except Exception as error:  # what one of them cannot look at is no reason for the others to see nothing
            log.exception("alarms: %s cannot be looked at", name)
            failed.append(f"{name}: {error}")
    return dg.SkipReason("; ".join(failed) or f"{sum(alarm.active for alarm in known.alarms())} alarms are active")


def _report_checks(instance: dg.DagsterInstance, graph: BaseAssetGraph, config: Settings, known: AlertStore) -> None:
    details = {alarm.cause: alarm.detail or {} for alarm in known.alarms() if alarm.active}
    checks = check_findings(instance, graph.asset_check_keys, details)
    told = overview(checks, known.remembered(OVERVIEW) or {}, f"http://{config.dagster}")
    known.sync_findings(checks, CHECKS, remember={OVERVIEW: told})


def _report_freshness(instance: dg.DagsterInstance, graph: BaseAssetGraph, known: AlertStore) -> None:
    known.sync_findings(freshness_findings(instance, freshness_of(graph)), FRESH)


def _report_runs(instance: dg.DagsterInstance, config: Settings, known: AlertStore) -> None:
    held = known.remembered(_RUNS)
    cursor = RunCursor.of(held) if held else RunCursor(datetime.now(UTC) - _FIRST_RUNS)
    # The stream has a report of its own, and its run is replaced at once.
    found, following = run_findings(instance, cursor, f"http://{config.dagster}", [stream_job.name])
    if following != cursor:
        known.sync_findings(found, remember={_RUNS: following.content()})


def champion_metrics(registry: Registry) -> dict[str, float | None]:
    """`model.champion.<model>`: 1 where one serves, 0 where one did and none does."""
    found: dict[str, float | None] = {}
    for model in models():
        versions = registry.versions(model)
        if any("promoted" in version.tags for version in versions):
            found[f"model.champion.{model}"] = float(any(CHAMPION in version.aliases for version in versions))
    return found


def _look(config: Settings) -> None:
    """The server looks at the platform itself; where none runs, this does."""
    watch = _watch(config.home)
    try:
        watch.look()
    finally:
        watch.close()  # a server that starts looks more often


@cache
def _watch(home: Path) -> Watch:
    """One for each CITY_HOME, so that a sensor opens the store once."""
    config = settings()
    return Watch(config, alert_store(config), own=FeatureFreshness(config).metrics)
