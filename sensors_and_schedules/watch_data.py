"""Looks at what the checks found, and at the rules, and tells people."""

import time

import dagster as dg

from city.alerts.desk import desk
from city.alerts.model import AlertError
from city.settings import settings
from city_assets.monitoring.alarms import check_findings, watch
from city_assets.monitoring.quality import latest_scores

_BEGUN = time.monotonic()  # of the code location, which starts with all the rest
_START_SECONDS = 90.0


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes alarms of failing checks and of rules that hold, clears what is over, and tells people.",
)
def watch_data(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    if time.monotonic() - _BEGUN < _START_SECONDS:
        return dg.SkipReason("everything is still starting")
    config = settings()
    assert context.repository_def is not None
    found = check_findings(context.instance, context.repository_def.asset_graph.asset_check_keys)
    try:
        done = watch(config, desk(config), found, latest_scores(config.lake))
    except AlertError as error:  # a setting that cannot be: said here and in the UI, and nothing is lost
        return dg.SkipReason(str(error))
    return dg.SkipReason(
        f"{done.raised} raised, {done.cleared} cleared, {done.escalated} escalated; "
        f"{done.sent} sent, {done.failed} failed"
    )
