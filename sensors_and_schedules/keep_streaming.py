"""Keeps the streaming job alive: a run is requested whenever none is active."""

import json
import time
from typing import Any

import dagster as dg
import psutil

from city.dagster_internals import WorkerStatus
from city.settings import settings
from city.stack.state import STREAM, process_of, read_json
from city.stack.status import FRESH_SECONDS
from city_assets.streaming import stream_job

_WAITING = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]
_LAUNCHED = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
_START_SECONDS = 60  # a run may take this long until it has a process that tells of it
_TICK_SECONDS = 5
_HUNG_SECONDS = 300.0
"""A process that has made no progress for so long is ended, and replaced."""
_END_SECONDS = 5.0


@dg.sensor(
    job=stream_job,
    minimum_interval_seconds=_TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts the streaming job when it does not run.",
)
def keep_streaming(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    report = read_json(settings(), STREAM)
    process = process_of(report)
    records = context.instance.get_run_records(dg.RunsFilter(job_name=stream_job.name, statuses=_WAITING + _LAUNCHED))
    if process is not None and report is not None:
        who = f"run {records[-1].dagster_run.run_id}" if records else "a process outside Dagster (city stream)"
        if time.time() - report["at"] < FRESH_SECONDS:
            context.update_cursor("")
            return dg.SkipReason(f"{who} streams")
        if not _is_hung(context, report):
            quiet = time.time() - report["at"]
            return dg.SkipReason(f"{who} makes no progress for {quiet:.0f} s: its process {process.pid} lives")
        _end(process)
    for record in records:
        run = record.dagster_run
        if run.status in _WAITING:  # however long: asked for again, it would wait behind all that came since
            return dg.SkipReason(f"run {run.run_id} waits for a place in the queue")
        if time.time() - record.update_timestamp.timestamp() < _START_SECONDS:
            return dg.SkipReason(f"run {run.run_id} starts")
        if _lives(context.instance, run):
            since = max(record.update_timestamp.timestamp(), report["at"] if report else 0.0)
            if time.time() - since < _HUNG_SECONDS:  # a machine without a core to spare, or a run on its last line
                return dg.SkipReason(f"run {run.run_id} does not stream yet, or no more: its process lives")
            context.instance.run_launcher.terminate(run.run_id)
        # Its process was killed together with Dagster, so nobody wrote down that it ended.
        context.instance.report_run_canceled(run, message="its process is gone")
    return dg.RunRequest()


def _is_hung(context: dg.SensorEvaluationContext, report: dict[str, Any]) -> bool:
    """Whether the same report was seen in so many ticks that it is not only the machine that slept, or was starved:
    the sensor's own clock stood still then too."""
    seen = json.loads(context.cursor or "{}")
    ticks = seen["ticks"] + 1 if seen.get("at") == report["at"] else 1
    context.update_cursor(json.dumps({"at": report["at"], "ticks": ticks}))
    return time.time() - report["at"] > _HUNG_SECONDS and ticks * _TICK_SECONDS >= _HUNG_SECONDS


def _end(process: psutil.Process) -> None:
    """Asks it to end, and ends it: a process that is stopped hears no request."""
    try:
        process.terminate()
        process.wait(_END_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()
        psutil.wait_procs([process], _END_SECONDS)
    except psutil.NoSuchProcess:
        return


def _lives(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the run's own process lives, by the launcher; of one that cannot tell, it does not."""
    launcher = instance.run_launcher
    if not launcher.supports_check_run_worker_health:
        return False
    return launcher.check_run_worker_health(run).status in (WorkerStatus.RUNNING, WorkerStatus.UNKNOWN)
