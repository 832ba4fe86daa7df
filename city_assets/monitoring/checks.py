"""Turns Dagster's records into findings: asset checks, ended runs, and tables that are not fresh."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from city.alerts.model import Finding, State
from city.dagster_internals import (
    FINISHED_STATUSES,
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
    BaseAssetGraph,
    BaseAssetNode,
    FreshnessState,
    StepEventStatus,
    TimeWindowFreshnessPolicy,
)
from city.severity import Severity

CHECKS, RUNS, FRESH = "check/", "run/", "fresh/"
"""The prefixes of the findings' causes."""
_SEVERITY: dict[dg.AssetCheckSeverity, Severity] = {
    dg.AssetCheckSeverity.WARN: "warning",
    dg.AssetCheckSeverity.ERROR: "error",
}
AT = "evaluated_at"
"""The key of a finding's detail that holds the time of the evaluation."""
_PARTITION = "partition"
_EVALUATED = "/evaluated"
_RANGE_END, _WILL_RETRY = "dagster/asset_partition_range_end", "dagster/will_retry"
_LATEST_RUNS = 200
_OVERLAP = timedelta(minutes=5)
"""The longest time from a run's own timestamp until it is stored: processes wait for SQLite, and clocks differ."""
_TAGGED_AFTER = timedelta(seconds=10)
"""The longest time from the record that a run failed until the tag that says whether it is retried."""
UNKNOWN = "unknown"
"""The metadata key of a check result that cannot be judged yet, because Dagster has only passed and failed."""


def check_findings(
    instance: dg.DagsterInstance, checks: Iterable[dg.AssetCheckKey], active_details: Mapping[str, Mapping[str, Any]]
) -> list[Finding]:
    """Returns two findings for each check: whether its newest evaluation failed, and whether it could be evaluated.

    An evaluation that is planned, under way or skipped leaves the state unknown. `active_details` are the details of
    active alarms, by cause. They are needed because a check that failed for a day is not cleared when it passes for an
    earlier day.
    """
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    runs = _load_runs(instance, records.values(), active_details)
    return [
        finding for key, record in records.items() for finding in _findings_of_check(key, record, runs, active_details)
    ]


def overview(findings: Iterable[Finding], before: Mapping[str, Any], link: str) -> dict[str, Any]:
    """Summarises all checks for the dashboard: which passed and which failed when they were last evaluated.

    `before` is the previous overview. A check whose state is unknown keeps its entry of it. `link` is the address of
    Dagster's UI. Returns the names of the passed checks (`passed`), and the failed checks by name (`failed`).
    """
    findings = list(findings)
    names = {finding.cause.removeprefix(CHECKS) for finding in findings}
    failed = {name: check for name, check in before.get("failed", {}).items() if name in names}
    passed = names & {*before.get("passed", [])}
    for finding in findings:
        name = finding.cause.removeprefix(CHECKS)
        if finding.state == "unknown" or name.endswith(_EVALUATED):
            continue
        passed.discard(name)
        failed.pop(name, None)
        if finding.state == "passing":
            passed.add(name)
            continue
        asset, check = name.rsplit("/", 1)
        failed[name] = {
            "asset": asset,
            "check": check,
            "severity": finding.severity,
            "says": finding.title,
            "at": (finding.detail or {}).get(AT),
            "link": f"{link}/assets/{asset}?view=checks",
        }
    return {"passed": sorted(passed), "failed": failed}


def _findings_of_check(
    key: dg.AssetCheckKey,
    record: AssetCheckExecutionRecord,
    runs: Mapping[str, dg.DagsterRun],
    active_details: Mapping[str, Mapping[str, Any]],
) -> list[Finding]:
    asset, run = key.asset_key.to_user_string(), runs.get(record.run_id)
    cause, labels = f"{CHECKS}{asset}/{key.name}", {"asset": asset, "type": "check"}
    evaluated = Finding(f"{cause}{_EVALUATED}", state="passing")
    if record.status == AssetCheckExecutionRecordStatus.PLANNED or record.evaluation is None:
        unknown = Finding(cause, state="unknown")
        if run is None or run.status != dg.DagsterRunStatus.FAILURE or run.tags.get(_WILL_RETRY) == "true":
            return [unknown, Finding(evaluated.cause, state="unknown")]
        title = f"{asset}: check {key.name} could not be evaluated: its run failed"
        detail = {"run": record.run_id}
        return [unknown, Finding(evaluated.cause, "error", title, asset, detail, labels=labels)]
    evaluation = record.evaluation
    if record.status == AssetCheckExecutionRecordStatus.SUCCEEDED:
        if UNKNOWN in evaluation.metadata:
            return [Finding(cause, state="unknown"), evaluated]
        day, failed_day = _last_partition(run), active_details.get(cause, {}).get(_PARTITION)
        is_earlier = day is not None and failed_day is not None and day < failed_day
        return [Finding(cause, state="unknown" if is_earlier else "passing"), evaluated]
    reason = f": {evaluation.description}" if evaluation.description else ""
    detail = {name: str(value.value)[:500] for name, value in evaluation.metadata.items()}
    detail[AT] = datetime.fromtimestamp(record.event.timestamp if record.event else 0.0, UTC).isoformat()
    if (partition := _last_partition(run)) is not None:
        detail[_PARTITION] = partition
    title = f"{asset}: check {key.name} failed{reason}"
    return [Finding(cause, _SEVERITY[evaluation.severity], title, asset, detail, labels=labels), evaluated]


def _load_runs(
    instance: dg.DagsterInstance,
    records: Iterable[AssetCheckExecutionRecord],
    active_details: Mapping[str, Mapping[str, Any]],
) -> dict[str, dg.DagsterRun]:
    """Loads the runs of the records that did not pass, or whose alarm names a partition. Returns them by run id."""
    run_ids = set()
    for record in records:
        cause = f"{CHECKS}{record.key.asset_key.to_user_string()}/{record.key.name}"
        if record.status != AssetCheckExecutionRecordStatus.SUCCEEDED or _PARTITION in active_details.get(cause, {}):
            run_ids.add(record.run_id)
    if not run_ids:
        return {}
    run_records = instance.get_run_records(dg.RunsFilter(run_ids=list(run_ids)))
    return {record.dagster_run.run_id: record.dagster_run for record in run_records}


def _last_partition(run: dg.DagsterRun | None) -> str | None:
    """Returns the last partition of a run, or None if it has none."""
    return run.tags.get(_RANGE_END) or run.tags.get("dagster/partition") if run is not None else None


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

    def content(self) -> dict[str, Any]:
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
        if has_new_run and run.job_name not in excluded_jobs and run.tags.get(_WILL_RETRY) != "true":
            findings += _findings_of_run(instance, run, f"{link}/runs/{run.run_id}")
    return findings, cursor.advance(seen, now)


def _format_time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _is_untagged(run: dg.DagsterRun) -> bool:
    return run.status == dg.DagsterRunStatus.FAILURE and _WILL_RETRY not in run.tags


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


_STALE = (FreshnessState.WARN, FreshnessState.FAIL)


@dataclass(frozen=True)
class Freshness:
    """An asset's parents and freshness limits.

    `warn_after` and `fail_after` are the times after which an unbuilt change of a parent is a warning or an error.
    """

    parents: frozenset[dg.AssetKey]
    warn_after: timedelta
    fail_after: timedelta


def freshness_of(graph: BaseAssetGraph[BaseAssetNode]) -> dict[dg.AssetKey, Freshness]:
    """Returns the freshness limits of each asset that has a policy with a time window."""
    nodes = [(key, graph.get(key)) for key in graph.materializable_asset_keys]
    return {
        key: Freshness(
            frozenset(node.parent_keys),
            (policy.warn_window or policy.fail_window).to_timedelta(),
            policy.fail_window.to_timedelta(),
        )
        for key, node in nodes
        if isinstance(policy := node.freshness_policy, TimeWindowFreshnessPolicy)
    }


def freshness_findings(
    instance: dg.DagsterInstance, followed: Mapping[dg.AssetKey, Freshness], now: datetime | None = None
) -> list[Finding]:
    """Returns, for each asset, a finding on whether it is as new as its freshness policy demands.

    Dagster's daemon has recorded the state. An asset that is too old but newer than all its parents has nothing to be
    built from. So an asset fails only when the policy's time has passed since the first change of a parent that the
    asset lacks. After an hour of silence on a topic, for example, the first new row is not late at once.
    """
    moment, findings = (now or datetime.now(UTC)).timestamp(), []
    for key, record in instance.get_freshness_state_records([*followed]).items():
        freshness, name = followed[key], key.to_user_string()
        state: State = "passing" if record.freshness_state == FreshnessState.PASS else "unknown"
        severity: Severity = "error"
        title = ""
        if record.freshness_state in _STALE:
            since = _behind_since(instance, key, freshness.parents)
            behind = timedelta(seconds=0 if since is None else moment - since)
            state = "failing" if behind > freshness.warn_after else "passing"
            severity = "error" if behind > freshness.fail_after else "warning"
            if since is not None:
                title = (
                    f"{name} is older than its freshness policy allows: it lacks what came at {_format_minute(since)}"
                )
        labels = {"asset": name, "type": "freshness"}
        findings.append(Finding(f"{FRESH}{name}", severity, title, "freshness", None, state, labels))
    return findings


def _behind_since(instance: dg.DagsterInstance, key: dg.AssetKey, parents: Iterable[dg.AssetKey]) -> float | None:
    """Returns the time of the first change of a parent that the asset lacks (seconds since the epoch).

    Returns None if the asset lacks no change.
    """
    last_build = instance.get_latest_materialization_event(key)
    after = last_build.timestamp if last_build is not None else 0.0
    first_changes = [
        record.timestamp
        for parent in parents
        for record in instance.fetch_materializations(
            dg.AssetRecordsFilter(parent, after_timestamp=after), limit=1, ascending=True
        ).records
    ]
    return min(first_changes, default=None)


def _format_minute(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
