"""From what Dagster knows to findings: checks, runs that ended, and tables that are older than they may be."""

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
_SEVERITY: dict[dg.AssetCheckSeverity, Severity] = {
    dg.AssetCheckSeverity.WARN: "warning",
    dg.AssetCheckSeverity.ERROR: "error",
}
AT = "evaluated_at"
_PARTITION = "partition"
_EVALUATED = "/evaluated"
_RANGE_END, _WILL_RETRY = "dagster/asset_partition_range_end", "dagster/will_retry"
_LATEST_RUNS = 200
_OVERLAP = timedelta(minutes=5)
"""A run is stored at most so long after the time that it says it was: processes wait for SQLite, and clocks differ."""
_TAGGED_AFTER = timedelta(seconds=10)
"""Dagster writes down that a run has failed, and a moment later whether it is tried again."""
UNKNOWN = "unknown"
"""A result of a check with this metadata says that nothing can be told, for Dagster knows only passed and failed."""


def check_findings(
    instance: dg.DagsterInstance, checks: Iterable[dg.AssetCheckKey], known: Mapping[str, Mapping[str, Any]]
) -> list[Finding]:
    """Two for each check: whether its newest evaluation failed, and whether it could be evaluated at all.

    An evaluation that is planned, under way or was skipped says nothing. `known` are the details of active alarms, by
    cause: what failed for a day is not well because an earlier day is.
    """
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    runs = _runs(instance, records.values(), known)
    return [finding for key, record in records.items() for finding in _of_check(key, record, runs, known)]


def overview(findings: Iterable[Finding], before: Mapping[str, Any], link: str) -> dict[str, Any]:
    """All checks as people see them: how many passed when they were last evaluated, and those that failed. `before` is
    the last overview: a check that is being evaluated is as it was."""
    findings = list(findings)
    known = {finding.cause.removeprefix(CHECKS) for finding in findings}
    failed = {name: check for name, check in before.get("failed", {}).items() if name in known}
    passed = known & {*before.get("passed", [])}
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


def _of_check(
    key: dg.AssetCheckKey,
    record: AssetCheckExecutionRecord,
    runs: Mapping[str, dg.DagsterRun],
    known: Mapping[str, Mapping[str, Any]],
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
        day, failed = _partition(run), known.get(cause, {}).get(_PARTITION)
        earlier = day is not None and failed is not None and day < failed
        return [Finding(cause, state="unknown" if earlier else "passing"), evaluated]
    said = f": {evaluation.description}" if evaluation.description else ""
    detail = {name: str(value.value)[:500] for name, value in evaluation.metadata.items()}
    detail[AT] = datetime.fromtimestamp(record.event.timestamp if record.event else 0.0, UTC).isoformat()
    if (partition := _partition(run)) is not None:
        detail[_PARTITION] = partition
    title = f"{asset}: check {key.name} failed{said}"
    return [Finding(cause, _SEVERITY[evaluation.severity], title, asset, detail, labels=labels), evaluated]


def _runs(
    instance: dg.DagsterInstance,
    records: Iterable[AssetCheckExecutionRecord],
    known: Mapping[str, Mapping[str, Any]],
) -> dict[str, dg.DagsterRun]:
    """The runs of the records that are not simply well."""
    wanted = set()
    for record in records:
        cause = f"{CHECKS}{record.key.asset_key.to_user_string()}/{record.key.name}"
        if record.status != AssetCheckExecutionRecordStatus.SUCCEEDED or _PARTITION in known.get(cause, {}):
            wanted.add(record.run_id)
    if not wanted:
        return {}
    found = instance.get_run_records(dg.RunsFilter(run_ids=list(wanted)))
    return {record.dagster_run.run_id: record.dagster_run for record in found}


def _partition(run: dg.DagsterRun | None) -> str | None:
    """The last partition that a run was of."""
    return run.tags.get(_RANGE_END) or run.tags.get("dagster/partition") if run is not None else None


@dataclass(frozen=True)
class RunCursor:
    """How far runs that ended were looked at: by the time of their last change `until` then, and which of the last
    minutes (`seen`: run id → that time). Who ends at the same time may be written down later. Of runs up to `begin`
    all were looked at, and nobody knows which they are."""

    until: datetime | None = None
    seen: Mapping[str, datetime] = field(default_factory=dict)
    begin: datetime | None = None

    @property
    def since(self) -> datetime | None:
        """From when on runs are looked at again."""
        if self.until is None:
            return self.begin
        overlap = self.until - _OVERLAP
        return overlap if self.begin is None else max(overlap, self.begin)

    def advance(self, seen: Mapping[str, datetime], now: datetime) -> "RunCursor":
        """After runs that were looked at too, at `now`. Runs whose times are later, of a clock that was ahead, take the
        cursor no further than that: it would pass over those that end until then."""
        until = max([*seen.values(), *([self.until] if self.until else [])], default=None)
        if until is None:
            return self
        until = min(until, now)
        overlap = until - _OVERLAP
        kept = {run: at for run, at in {**self.seen, **seen}.items() if at > overlap}
        begin = self.begin if self.begin is not None and overlap < self.begin <= now else None
        return RunCursor(until, kept, begin)

    def content(self) -> dict[str, Any]:
        """As JSON, for `of`."""
        seen = {run: at.isoformat() for run, at in self.seen.items()}
        return {"until": _text(self.until), "seen": seen, "begin": _text(self.begin)}

    @classmethod
    def of(cls, content: Any) -> "RunCursor":
        if isinstance(content, str):  # of an earlier version, which kept the time alone, and looked at what is later
            until = datetime.fromisoformat(content)
            return cls(until, {}, until)
        seen = {run: datetime.fromisoformat(at) for run, at in content["seen"].items()}
        return cls(_time(content["until"]), seen, _time(content.get("begin")))


def run_findings(
    instance: dg.DagsterInstance, cursor: RunCursor, link: str, apart: Sequence[str] = ()
) -> tuple[list[Finding], RunCursor]:
    """What became of each step of the runs that ended since the cursor, in order of their end, and the next cursor.

    Of a run that was written down late, all that ended after it follow once more: what it says may be over. Jobs in
    `apart` are watched otherwise. A run that is tried again says nothing yet; nor does one that was cancelled, of the
    steps that it did not come to.
    """
    now, since = datetime.now(UTC), cursor.since
    ended = dg.RunsFilter(updated_after=since, statuses=list(FINISHED_STATUSES))
    limit = _LATEST_RUNS + len(cursor.seen)  # which may all come before what is new
    records = instance.get_run_records(ended, limit=limit, order_by="update_timestamp", ascending=True)
    found: list[Finding] = []
    seen: dict[str, datetime] = {}
    is_news = False
    for record in records:
        run = record.dagster_run
        if since is not None and record.end_time is not None and record.end_time <= since.timestamp():
            # Somebody has tagged a run of before. It counts as seen: enough of them would fill every look.
            seen[run.run_id] = record.update_timestamp
            continue
        if instance.run_retries_enabled and _is_untagged(run) and abs(now - record.update_timestamp) < _TAGGED_AFTER:
            break
        seen[run.run_id] = record.update_timestamp
        is_known = run.run_id in cursor.seen
        if is_known and record.update_timestamp > now:
            continue  # its clock was ahead: what ended since is later than it
        is_news = is_news or not is_known
        if is_news and run.job_name not in apart and run.tags.get(_WILL_RETRY) != "true":
            found += _of_run(instance, run, f"{link}/runs/{run.run_id}")
    return found, cursor.advance(seen, now)


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _is_untagged(run: dg.DagsterRun) -> bool:
    return run.status == dg.DagsterRunStatus.FAILURE and _WILL_RETRY not in run.tags


def _of_run(instance: dg.DagsterInstance, run: dg.DagsterRun, link: str) -> list[Finding]:
    failed = run.status == dg.DagsterRunStatus.FAILURE
    steps = {stats.step_key: stats.status for stats in instance.get_run_step_stats(run.run_id)}
    found = []
    for step, status in steps.items():
        cause = f"{RUNS}{step.replace('__', '/')}"
        if status == StepEventStatus.FAILURE and failed:
            found.append(_failed(instance, run, cause, step, link))
        elif status == StepEventStatus.SUCCESS:
            found.append(Finding(cause, state="passing"))
    job = f"{RUNS}{run.job_name}"
    if failed and not any(finding.state == "failing" for finding in found):
        # No step has failed: the process was killed, or never came to be. It was to make these.
        done = {finding.cause for finding in found}
        assets = [f"{RUNS}{key.to_user_string()}" for key in sorted(run.asset_selection or (), key=str)]
        found += [_failed(instance, run, c, None, link) for c in assets or [job] if c not in done]
    elif run.status == dg.DagsterRunStatus.SUCCESS:
        found.append(Finding(job, state="passing"))
    return found


def _failed(instance: dg.DagsterInstance, run: dg.DagsterRun, cause: str, step: str | None, link: str) -> Finding:
    name = cause.removeprefix(RUNS)
    logs = instance.all_logs(
        run.run_id, of_type={dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.PIPELINE_FAILURE}
    )
    said = next((text for entry in logs if (text := _error(entry)) and entry.step_key == step), "")
    detail = {"run": run.run_id, "job": run.job_name, "link": link, "error": said[:2_000]}
    first = said.strip().splitlines()[0][:300] if said.strip() else "see its run"
    return Finding(cause, "error", f"run of {name} failed: {first}", "runs", detail, labels={"type": "run"})


def _error(entry: dg.EventLogEntry) -> str:
    """What a failure says of its cause, the innermost first."""
    data = entry.dagster_event.event_specific_data if entry.dagster_event else None
    error = getattr(data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message if error is not None else entry.user_message


_STALE = (FreshnessState.WARN, FreshnessState.FAIL)


@dataclass(frozen=True)
class Freshness:
    """What the freshness of an asset depends on."""

    parents: frozenset[dg.AssetKey]
    warn_after: timedelta
    fail_after: timedelta


def freshness_of(graph: BaseAssetGraph[BaseAssetNode]) -> dict[dg.AssetKey, Freshness]:
    """Of each asset with a policy of a time window."""
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
    """Whether each asset is as new as its freshness policy demands, by the state that Dagster's daemon has recorded.

    An asset that is older than that, and newer than all of its parents, has nothing to be built from. So an asset
    fails only when the policy's time has passed since the first change of a parent that it does not have yet: of a
    topic that is silent for an hour, the first new row is not late before it is built.
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
                title = f"{name} is older than its freshness policy allows: it lacks what came at {_at(since)}"
        labels = {"asset": name, "type": "freshness"}
        findings.append(Finding(f"{FRESH}{name}", severity, title, "freshness", None, state, labels))
    return findings


def _behind_since(instance: dg.DagsterInstance, key: dg.AssetKey, parents: Iterable[dg.AssetKey]) -> float | None:
    """When the first change of a parent came that the asset does not have (seconds since the epoch); None where it has
    all."""
    own = instance.get_latest_materialization_event(key)
    after = own.timestamp if own is not None else 0.0
    firsts = [
        record.timestamp
        for parent in parents
        for record in instance.fetch_materializations(
            dg.AssetRecordsFilter(parent, after_timestamp=after), limit=1, ascending=True
        ).records
    ]
    return min(firsts, default=None)


def _at(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
