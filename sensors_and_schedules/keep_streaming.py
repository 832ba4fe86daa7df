"""Keeps the streaming job alive: a run is requested whenever none is active."""

import time

import dagster as dg

from city.settings import settings
from city.stack.state import STREAM, read_json
from city.stack.status import is_running
from city_assets.streaming import stream_job

_WAITING = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]
_LAUNCHED = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
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
    records = context.instance.get_run_records(dg.RunsFilter(job_name=stream_job.name, statuses=_WAITING + _LAUNCHED))
    for record in records:
        run = record.dagster_run
        if alive:
            return dg.SkipReason(f"run {run.run_id} streams")
        if run.status in _WAITING:  # however long: asked for again, it would wait behind all that came since
            return dg.SkipReason(f"run {run.run_id} waits for a place in the queue")
        if time.time() - record.update_timestamp.timestamp() < _START_SECONDS:
            return dg.SkipReason(f"run {run.run_id} starts")
        # Its process was killed together with Dagster, so nobody wrote down that it ended.
        context.instance.report_run_canceled(run, message="its process is gone")
    if alive:
        return dg.SkipReason("the stream runs outside Dagster (city stream)")
    return dg.RunRequest()
