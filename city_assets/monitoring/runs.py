"""Turns ended runs of Dagster into findings, a finding for each step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from city.alerts.model import Finding
from city.dagster_internals import FINISHED_STATUSES, StepEventStatus

RUNS = "run/"
"""The prefix of the findings' causes."""
WILL_RETRY = "dagster/will_retry"
"""The tag that says whether Dagster runs a failed run again."""
_LATEST_RUNS = 200
_OVERLAP = timedelta(minutes=5)
"""The longest time from a run's own timestamp until it is stored: processes wait for SQLite, and clocks differ."""
_TAGGED_AFTER = timedelta(seconds=10)
"""The longest time from the record that a run failed until the tag that says whether it is retried."""


@dataclass(frozen=True)
class RunCursor:
    """The position up to which ended runs were read.

    `until` is the newest time of a last change among the runs that were read. `seen` are the runs of the last minutes
    (run id → the time of its last change): a run that ends at the same time may be stored later. All runs up to `begin`
    were read, but their ids are not recorded.
    """

    until: datetime | None = None
    seen: Mapping[str, datetime] = field(default_factory=dict)
    begin: datetime | None = None

    @property
    def since(self) -> datetime | None:
        """Returns the time from which on runs are read again."""
        if self.until is None:
            return self.begin
        overlap = self.until - _OVERLAP
        return overlap if self.begin is None else max(overlap, self.begin)

    def advance(self, seen: Mapping[str, datetime], now: datetime) -> "RunCursor":
        """Returns the cursor after the runs `seen` were read, at the time `now`.

        The cursor never passes `now`. A run has a later time if its clock was ahead, and such a cursor would skip the
        runs that end until then.
        """
        until = max([*seen.values(), *([self.until] if self.until else [])], default=None)
        if until is None:
            return self
        until = min(until, now)
        overlap = until - _OVERLAP
        recent = {run: at for run, at in {**self.seen, **seen}.items() if at > overlap}
        begin = self.begin if self.begin is not None and overlap < self.begin <= now else None
        return RunCursor(until, recent, begin)

    def content(self) -> dict[str, object]:
        """Returns the cursor as JSON, for `from_content`."""
        seen = {run: at.isoformat() for run, at in self.seen.items()}
        return {"until": _format_time(self.until), "seen": seen, "begin": _format_time(self.begin)}

    @classmethod
    def from_content(cls, content: Any) -> "RunCursor":
        """Restores a cursor from what `content` returned."""
        if isinstance(content, str):  # an earlier version stored only the time, and read the runs after it
            until = datetime.fromisoformat(content)
            return cls(until, {}, until)
        seen = {run: datetime.fromisoformat(at) for run, at in content["seen"].items()}
        return cls(_parse_time(content["until"]), seen, _parse_time(content.get("begin")))


def run_findings(
    instance: dg.DagsterInstance, cursor: RunCursor, link: str, excluded_jobs: Sequence[str] = ()
) -> tuple[list[Finding], RunCursor]:
    """Returns the findings of each step of the runs that ended since the cursor, in order of their end.

    If a run was stored late, the runs that ended after it are reported once more, because they may clear its findings.
    Jobs in `excluded_jobs` have another report and are left out. A run that will be retried has no findings yet. A
    cancelled run has none for the steps that it did not reach. `link` is the address of Dagster's UI.

    Returns the findings and the next cursor.
    """
    now, since = datetime.now(UTC), cursor.since
    ended = dg.RunsFilter(updated_after=since, statuses=list(FINISHED_STATUSES))
    limit = _LATEST_RUNS + len(cursor.seen)  # all seen runs may come before the new ones
    records = instance.get_run_records(ended, limit=limit, order_by="update_timestamp", ascending=True)
    findings: list[Finding] = []
    seen: dict[str, datetime] = {}
    has_new_run = False
    for record in records:
        run = record.dagster_run
        if since is not None and record.end_time is not None and record.end_time <= since.timestamp():
            # An old run was tagged. It counts as seen: otherwise enough of these runs would fill every read.
            seen[run.run_id] = record.update_timestamp
            continue
        if instance.run_retries_enabled and _is_untagged(run) and abs(now - record.update_timestamp) < _TAGGED_AFTER:
            break
        seen[run.run_id] = record.update_timestamp
        was_seen = run.run_id in cursor.seen
        if was_seen and record.update_timestamp > now:
            continue  # its clock was ahead: it is older than the runs that ended since
        has_new_run = has_new_run or not was_seen
        if has_new_run and run.job_name not in excluded_jobs and run.tags.get(WILL_RETRY) != "true":
            findings += _findings_of_run(instance, run, f"{link}/runs/{run.run_id}")
    return findings, cursor.advance(seen, now)


def _format_time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _is_untagged(run: dg.DagsterRun) -> bool:
    return run.status == dg.DagsterRunStatus.FAILURE and WILL_RETRY not in run.tags


def _findings_of_run(instance: dg.DagsterInstance, run: dg.DagsterRun, link: str) -> list[Finding]:
    failed = run.status == dg.DagsterRunStatus.FAILURE
    steps = {stats.step_key: stats.status for stats in instance.get_run_step_stats(run.run_id)}
    findings = []
    for step, status in steps.items():
        cause = f"{RUNS}{step.replace('__', '/')}"
        if status == StepEventStatus.FAILURE and failed:
            findings.append(_run_failure(instance, run, cause, step, link))
        elif status == StepEventStatus.SUCCESS:
            findings.append(Finding(cause, state="passing"))
    job = f"{RUNS}{run.job_name}"
    if failed and not any(finding.state == "failing" for finding in findings):
        # No step has failed, so the process was killed or never started. The assets that have no finding yet failed.
        reported = {finding.cause for finding in findings}
        assets = [f"{RUNS}{key.to_user_string()}" for key in sorted(run.asset_selection or (), key=str)]
        findings += [_run_failure(instance, run, c, None, link) for c in assets or [job] if c not in reported]
    elif run.status == dg.DagsterRunStatus.SUCCESS:
        findings.append(Finding(job, state="passing"))
    return findings


def _run_failure(instance: dg.DagsterInstance, run: dg.DagsterRun, cause: str, step: str | None, link: str) -> Finding:
    name = cause.removeprefix(RUNS)
    logs = instance.all_logs(
        run.run_id, of_type={dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.PIPELINE_FAILURE}
    )
    error = next((text for entry in logs if (text := _error_message(entry)) and entry.step_key == step), "")
    detail = {"run": run.run_id, "job": run.job_name, "link": link, "error": error[:2_000]}
    first_line = error.strip().splitlines()[0][:300] if error.strip() else "see its run"
    return Finding(cause, "error", f"run of {name} failed: {first_line}", "runs", detail, labels={"type": "run"})


def _error_message(entry: dg.EventLogEntry) -> str:
    """Returns the message of a failure's innermost cause."""
    data = entry.dagster_event.event_specific_data if entry.dagster_event else None
    error = getattr(data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message if error is not None else entry.user_message
