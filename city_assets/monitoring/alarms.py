"""From failing checks and from rules to alarms, and from alarms to messages."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from city.alerts.desk import Desk
from city.alerts.dispatch import announce, deliver
from city.alerts.model import Finding, Severity
from city.alerts.rules import evaluate, rules, source_metrics, stream_metrics
from city.settings import Settings

CHECKS, RULES = "check/", "rule/"
_SEVERITY: dict[dg.AssetCheckSeverity, Severity] = {
    dg.AssetCheckSeverity.WARN: "warning",
    dg.AssetCheckSeverity.ERROR: "error",
}


@dataclass(frozen=True)
class Watched:
    """What one look found."""

    raised: int
    cleared: int
    escalated: int
    sent: int
    failed: int


def watch(
    config: Settings,
    desk: Desk,
    found: Iterable[Finding],
    quality: Mapping[str, float | None],
    now: datetime | None = None,
) -> Watched:
    """Reports what checks found, and what the rules say of the metrics of stream and quality, and sends messages."""
    moment = now or datetime.now(UTC)
    metrics = stream_metrics(config, moment.timestamp()) | source_metrics(config) | dict(quality)
    before = desk.remember("metrics", metrics) or {}
    raised, cleared = desk.report(found, CHECKS, moment)
    of_rules = desk.report(evaluate(rules(config), metrics, before), RULES, moment)
    raised, cleared = raised + of_rules[0], cleared + of_rules[1]
    escalated = desk.escalate(timedelta(minutes=config.alert_escalate_minutes), moment)
    for event, numbers in (("raised", raised), ("cleared", cleared), ("escalated", escalated)):
        announce(desk, config, event, numbers, moment)
    sent, failed = deliver(desk, config, moment)
    return Watched(len(raised), len(cleared), len(escalated), sent, failed)


def check_findings(instance: dg.DagsterInstance, checks: Iterable[dg.AssetCheckKey]) -> list[Finding]:
    """The checks whose newest evaluation failed."""
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    return [finding for key, record in records.items() if (finding := _finding(key, record)) is not None]


def _finding(key: dg.AssetCheckKey, record: object) -> Finding | None:
    status, event = record.status, record.event  # type: ignore[attr-defined]
    asset = key.asset_key.to_user_string()
    cause, group = f"{CHECKS}{asset}/{key.name}", asset
    if status == AssetCheckExecutionRecordStatus.FAILED and event is not None:
        evaluation = event.dagster_event.asset_check_evaluation_data
        said = f": {evaluation.description}" if evaluation.description else ""
        detail = {name: str(value.value)[:500] for name, value in evaluation.metadata.items()}
        return Finding(cause, _SEVERITY[evaluation.severity], f"{asset}: check {key.name} failed{said}", group, detail)
    return None
