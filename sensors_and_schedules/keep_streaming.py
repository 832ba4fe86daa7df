"""The sensor that keeps the streaming job alive. It requests a run whenever none is active."""

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
_START_SECONDS = 60  # a run may take this long until its process reports
_TICK_SECONDS = 5
_HUNG_SECONDS = 300.0
"""A process that makes no progress for this long is ended and replaced."""
_END_SECONDS = 5.0


@dg.sensor(
    job=stream_job,
    minimum_interval_seconds=_TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts the streaming job when it does not run.",
)
def keep_streaming(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Requests a streaming run if no process streams.

    Before that, ends a process that hangs, and marks runs as cancelled whose process is gone.
    """
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
        _end_process(process)
    for record in records:
        run = record.dagster_run
        if run.status in _WAITING:  # for any time: a new request would wait behind all runs that were queued since
            return dg.SkipReason(f"run {run.run_id} waits for a place in the queue")
        if time.time() - record.update_timestamp.timestamp() < _START_SECONDS:
            return dg.SkipReason(f"run {run.run_id} starts")
        if _is_alive(context.instance, run):
            since = max(record.update_timestamp.timestamp(), report["at"] if report else 0.0)
            if time.time() - since < _HUNG_SECONDS:  # the machine may be overloaded, or the run is about to end
                return dg.SkipReason(f"run {run.run_id} does not stream now, but its process lives")
            context.instance.run_launcher.terminate(run.run_id)
        # Its process was killed together with Dagster, so the end of the run was not recorded.
        context.instance.report_run_canceled(run, message="its process is gone")
    return dg.RunRequest()


def _is_hung(context: dg.SensorEvaluationContext, report: dict[str, Any]) -> bool:
    """Returns whether the stream's process hangs.

    It hangs if its report is old, and was the same in many ticks. The ticks are counted because the sensor also stood
    still while the machine slept or was overloaded.
    """
    seen = json.loads(context.cursor or "{}")
    ticks = seen["ticks"] + 1 if seen.get("at") == report["at"] else 1
    context.update_cursor(json.dumps({"at": report["at"], "ticks": ticks}))
    return time.time() - report["at"] > _HUNG_SECONDS and ticks * _TICK_SECONDS >= _HUNG_SECONDS


def _end_process(process: psutil.Process) -> None:
    """Terminates a process, and kills it if it does not end: a process that is stopped (SIGSTOP) handles no signal."""
    try:
        process.terminate()
        process.wait(_END_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()
        psutil.wait_procs([process], _END_SECONDS)
    except psutil.NoSuchProcess:
        return


def _is_alive(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Returns whether the run's own process lives, by the launcher. Returns False for a launcher that cannot tell."""
    launcher = instance.run_launcher
    if not launcher.supports_check_run_worker_health:
        return False
    return launcher.check_run_worker_health(run).status in (WorkerStatus.RUNNING, WorkerStatus.UNKNOWN)
