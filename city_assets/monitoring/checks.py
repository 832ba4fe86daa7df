"""Turns Dagster's records of asset checks into findings, and sums them up for the dashboard."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import dagster as dg
from typing_extensions import TypedDict

from city.alerts.model import Finding
from city.dagster_internals import AssetCheckExecutionRecord, AssetCheckExecutionRecordStatus
from city.severity import Severity
from city_assets.monitoring.runs import WILL_RETRY

CHECKS = "check/"
"""The prefix of the findings' causes."""
_SEVERITY: dict[dg.AssetCheckSeverity, Severity] = {
    dg.AssetCheckSeverity.WARN: "warning",
    dg.AssetCheckSeverity.ERROR: "error",
}
AT = "evaluated_at"
"""The key of a finding's detail that holds the time of the evaluation."""
_PARTITION = "partition"
_EVALUATED = "/evaluated"
_RANGE_END = "dagster/asset_partition_range_end"
UNKNOWN = "unknown"
"""The metadata key of a check result that cannot be judged yet, because Dagster has only passed and failed."""


class FailedCheck(TypedDict):
    """A check that failed when it was last evaluated."""

    asset: str
    check: str
    severity: Severity
    says: str
    at: object
    """The time of the evaluation, as the finding's detail has it."""
    link: str
    """The address of the asset's checks in Dagster's UI."""


class Overview(TypedDict, total=False):
    """All checks, by their newest evaluation. It is empty before the first one."""

    passed: list[str]
    failed: dict[str, FailedCheck]
    """The failed checks, by name."""


def check_findings(
    instance: dg.DagsterInstance, checks: Iterable[dg.AssetCheckKey], active_details: Mapping[str, Mapping[str, object]]
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


def overview(findings: Iterable[Finding], before: Overview, link: str) -> Overview:
    """Summarises all checks for the dashboard: which passed and which failed when they were last evaluated.

    `before` is the previous overview. A check whose state is unknown keeps its entry of it. `link` is the address of
    Dagster's UI.
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
    active_details: Mapping[str, Mapping[str, object]],
) -> list[Finding]:
    asset, run = key.asset_key.to_user_string(), runs.get(record.run_id)
    cause, labels = f"{CHECKS}{asset}/{key.name}", {"asset": asset, "type": "check"}
    evaluated = Finding(f"{cause}{_EVALUATED}", state="passing")
    if record.status == AssetCheckExecutionRecordStatus.PLANNED or record.evaluation is None:
        unknown = Finding(cause, state="unknown")
        if run is None or run.status != dg.DagsterRunStatus.FAILURE or run.tags.get(WILL_RETRY) == "true":
            return [unknown, Finding(evaluated.cause, state="unknown")]
        title = f"{asset}: check {key.name} could not be evaluated: its run failed"
        detail = {"run": record.run_id}
        return [unknown, Finding(evaluated.cause, "error", title, asset, detail, labels=labels)]
    evaluation = record.evaluation
    if record.status == AssetCheckExecutionRecordStatus.SUCCEEDED:
        if UNKNOWN in evaluation.metadata:
            return [Finding(cause, state="unknown"), evaluated]
        day, failed_day = _last_partition(run), active_details.get(cause, {}).get(_PARTITION)
        is_earlier = day is not None and isinstance(failed_day, str) and day < failed_day
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
    active_details: Mapping[str, Mapping[str, object]],
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
