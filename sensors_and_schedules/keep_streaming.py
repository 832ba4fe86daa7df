"""The sensor that keeps the streaming job alive, and tells the asset graph what the stream writes."""

import json
import time
from dataclasses import asdict, dataclass, field

import dagster as dg
import psutil

from city.contracts.registry import streamed
from city.dagster_internals import WorkerStatus
from city.settings import settings
from city.stack.state import STREAM, Report, has_stream_part, process_of, read_json
from city.stack.status import FRESH_SECONDS
from city_assets.stream_growth import ReportedGrowth
from city_assets.streaming import stream_job
from resources.lake import LakeResource

_WAITING = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]
_LAUNCHED = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
_START_SECONDS = 60  # a run may take this long until its process reports
_TICK_SECONDS = 5
_HUNG_SECONDS = 300.0
"""A process that makes no progress for this long is ended and replaced."""
_END_SECONDS = 5.0


@dataclass
class _Cursor:
    """What the sensor remembers from tick to tick."""

    quiet_at: float | None = None
    """The time of a report of the stream that is old."""
    quiet_ticks: int = 0
    """In how many ticks it was the newest report."""
    growth: ReportedGrowth = field(default_factory=ReportedGrowth)

    @staticmethod
    def load(text: str | None) -> "_Cursor":
        """Reads the cursor. That of an earlier release has other fields, and counts as none."""
        content = json.loads(text or "{}")
        try:
            return _Cursor(**content | {"growth": ReportedGrowth(**content.get("growth", {}))})
        except TypeError:
            return _Cursor()

    def dump(self) -> str:
        """Returns the text."""
        return json.dumps(asdict(self))


@dg.sensor(
    job=stream_job,
    minimum_interval_seconds=_TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports what the stream writes, and starts the streaming job when nothing streams.",
)
def keep_streaming(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult:
    """Reports the tables and days that grew, and requests a streaming run if no process streams.

    Before that, ends a process that hangs, and marks runs as cancelled whose process is gone. Where `city up` runs the
    stream as a part of its own, that restarts it, and no run is requested.
    """
    cursor, report = _Cursor.load(context.cursor), read_json(settings(), STREAM)
    decision = _keep_alive(context.instance, report, cursor)
    events: list[dg.AssetMaterialization] = []
    if report is not None and time.time() - cursor.growth.at >= settings().report_seconds:
        events = cursor.growth.take_events(streamed(settings()), report, lake, time.time())
    return dg.SensorResult(
        run_requests=[decision] if isinstance(decision, dg.RunRequest) else None,
        skip_reason=None if isinstance(decision, dg.RunRequest) else decision,
        cursor=cursor.dump(),
        asset_events=events,
    )


def _keep_alive(instance: dg.DagsterInstance, report: Report | None, cursor: _Cursor) -> dg.RunRequest | dg.SkipReason:
    """Returns the request of a streaming run, or why none is wanted."""
    process, is_supervised = process_of(report), has_stream_part(settings())
    records = instance.get_run_records(dg.RunsFilter(job_name=stream_job.name, statuses=_WAITING + _LAUNCHED))
    if is_supervised:
        for record in records:
            _cancel(instance, record.dagster_run, "`city up` runs the stream")
        records = []
    if process is not None and report is not None:
        run = f"run {records[-1].dagster_run.run_id}" if records else None
        who = run or ("the stream of `city up`" if is_supervised else "a process outside Dagster (city stream)")
        if time.time() - report["at"] < FRESH_SECONDS:
            cursor.quiet_at, cursor.quiet_ticks = None, 0
            return dg.SkipReason(f"{who} streams")
        if not _is_hung(cursor, report):
            quiet = time.time() - report["at"]
            return dg.SkipReason(f"{who} makes no progress for {quiet:.0f} s: its process {process.pid} lives")
        _end_process(process)
    if is_supervised:
        return dg.SkipReason("`city up` starts the stream")
    for record in records:
        waiting = _reason_to_wait(instance, record, report)
        if waiting is not None:
            return dg.SkipReason(waiting)
        # Its process was killed together with Dagster, so the end of the run was not recorded.
        instance.report_run_canceled(record.dagster_run, message="its process is gone")
    return dg.RunRequest()


def _reason_to_wait(instance: dg.DagsterInstance, record: dg.RunRecord, report: Report | None) -> str | None:
    """Returns why no run is requested beside this unfinished one. Returns None where its process is gone or hung."""
    run = record.dagster_run
    if run.status in _WAITING:  # for any time: a new request would wait behind all runs that were queued since
        return f"run {run.run_id} waits for a place in the queue"
    if time.time() - record.update_timestamp.timestamp() < _START_SECONDS:
        return f"run {run.run_id} starts"
    if _is_alive(instance, run):
        since = max(record.update_timestamp.timestamp(), report["at"] if report else 0.0)
        if time.time() - since < _HUNG_SECONDS:  # the machine may be overloaded, or the run is about to end
            return f"run {run.run_id} does not stream now, but its process lives"
        instance.run_launcher.terminate(run.run_id)
    return None


def _cancel(instance: dg.DagsterInstance, run: dg.DagsterRun, reason: str) -> None:
    """Ends an unfinished run of an earlier release, or of a Dagster that ran without a supervisor."""
    if run.status not in _WAITING and _is_alive(instance, run):
        instance.run_launcher.terminate(run.run_id)
    else:
        instance.report_run_canceled(run, message=reason)


def _is_hung(cursor: _Cursor, report: Report) -> bool:
    """Returns whether the stream's process hangs.

    It hangs if its report is old, and was the same in many ticks. The ticks are counted because the sensor also stood
    still while the machine slept or was overloaded.
    """
    cursor.quiet_ticks = cursor.quiet_ticks + 1 if cursor.quiet_at == report["at"] else 1
    cursor.quiet_at = report["at"]
    return time.time() - report["at"] > _HUNG_SECONDS and cursor.quiet_ticks * _TICK_SECONDS >= _HUNG_SECONDS


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
