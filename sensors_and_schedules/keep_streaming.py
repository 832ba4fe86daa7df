"""Keeps the streaming job alive: a run is requested whenever none is active."""

import time

import dagster as dg

from city.settings import settings
from city.stack.state import STREAM, read_json
from city.stack.status import is_running
from city_assets.streaming import stream_job

_ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]
_START_SECONDS = 60  # a run may take this long to write its first report


@dg.sensor(
    job=stream_job,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts the streaming job when it does not run.",
)
def keep_streaming(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    report = read_json(settings(), STREAM)
    alive = report is not None and not report["ended"] and is_running(report)
    records = context.instance.get_run_records(dg.RunsFilter(job_name=stream_job.name, statuses=_ACTIVE))
    for record in records:
        age = time.time() - record.create_timestamp.timestamp()
        if alive or age < _START_SECONDS:
            return dg.SkipReason(f"run {record.dagster_run.run_id} streams")
        # Its process was killed together with Dagster, so nobody wrote down that it ended.
        context.instance.report_run_canceled(record.dagster_run, message="its process is gone")
    if alive:
        return dg.SkipReason("the stream runs outside Dagster (city stream)")
    return dg.RunRequest()
