"""Judges the platform in one look: its parts and its disk, the rules, and the channels that messages wait for."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from city.alerts import backlog, system
from city.alerts.conditions import CAUSES
from city.alerts.lease import Lease
from city.alerts.model import AlertError, Finding, Rule
from city.alerts.outcome_metrics import SHARED
from city.alerts.rules import DEFAULT, evaluate, rules, source_metrics, stream_metrics
from city.alerts.store import AlertStore, Changes
from city.alerts.supervision import CAUSE, describe_kill, without_unsupervised
from city.settings import Settings
from city.stack.state import SUPERVISOR, leftovers, process_of, read_json
from city.stack.status import is_stopping, parts

RULES = "rule/"
_METRICS, _PARTS, _ACTIVE = "metrics", "parts", "domain.active."
ServerCheck = Callable[[], Mapping[str, str | None]]
"""Checks the servers. Returns, by server, why it does not answer; None where it does."""
OwnMetrics = Callable[[], Mapping[str, float | None]]
"""Returns metrics that only this process has, by name."""


@dataclass(frozen=True)
class LookResult:
    """The result of one look: the alarms that were raised and cleared, and how many were escalated."""

    reported: Changes
    escalated: int

    def __str__(self) -> str:
        raised, cleared = len(self.reported.raised), len(self.reported.cleared)
        return f"{raised} raised, {cleared} cleared, {self.escalated} escalated"


class PlatformWatch:
    """Judges the platform, as long as this process has the lease.

    Several servers and Dagster's sensor may look; the one that has the lease judges. The messages are sent elsewhere
    (`city.alerts.dispatch`), because sending may have to wait.
    """

    def __init__(
        self,
        config: Settings,
        store: AlertStore,
        check_servers: ServerCheck | None = None,
        own: OwnMetrics = dict,
        began: datetime | None = None,
    ) -> None:
        """`own` returns metrics that only this process has. `began` is when the platform was started (default: now)."""
        self._config, self._store, self._check_servers, self._own = config, store, check_servers, own
        self._lease = Lease(config.alerts_store, "watch")
        self._began = (began or datetime.now(UTC)).timestamp()

    def look(self, now: datetime | None = None) -> LookResult:
        """Judges the platform, and applies the passing of time to the alarms. Call it every few seconds."""
        moment = now or datetime.now(UTC)
        try:
            reported = self._judge_platform(moment) if self._lease.acquire() else Changes([], [])
        finally:  # an error of this look must not delay the escalation of other alarms
            escalated = self._store.tick(timedelta(minutes=self._config.alert_escalate_minutes), moment)
        return LookResult(reported, len(escalated))

    def close(self) -> None:
        """Releases the lease, so that another process can judge."""
        self._lease.release()

    def _judge_platform(self, moment: datetime) -> Changes:
        if is_stopping(self._config):
            return Changes([], [])
        seconds, before = moment.timestamp(), self._store.remembered(_METRICS) or {}
        room, metrics = system.disk(self._config.home, self._config.disk_free_gb)
        watched_parts = system.Parts(self._store.remembered(_PARTS))
        unavailable = self._check_servers() if self._check_servers else None
        # After the check of the servers, which takes seconds while they stop: a city that has stopped was not killed.
        supervisor = read_json(self._config, SUPERVISOR)
        platform = [supervisor["pid"], supervisor["created"]] if supervisor else None
        states = parts(self._config)
        part_findings = watched_parts.findings(states, unavailable, seconds, platform)
        supervision = Finding(CAUSE, state="passing")
        if supervisor is not None and process_of(supervisor) is None:
            part_findings = without_unsupervised(part_findings, states, unavailable)
            started = [name for name, part in supervisor["parts"].items() if part.get("pid")]
            supervision = describe_kill(started, leftovers(self._config))
        findings = [*part_findings, supervision, room]
        in_force, readable = self._load_rules()
        metrics |= system.metrics(findings) | stream_metrics(self._config, seconds) | source_metrics(self._config)
        causes = self._store.active_causes()
        metrics.update(self._own())
        metrics |= dict.fromkeys((name for name in before if name.startswith(_ACTIVE)), 0.0) | active(causes)
        metrics |= shared(self._store)
        names = {rule.name for rule in in_force}
        rule_causes = [cause for cause in causes if cause.startswith(RULES)]
        removed = [Finding(cause, state="passing") for cause in rule_causes if cause.split("/")[1] not in names]
        # A process that checks no servers knows nothing of them.
        scope = system.SYSTEM if self._check_servers else None
        findings += backlog.findings(self._store, self._config, causes, moment, self._began)
        changes = self._store.sync_findings([*findings, readable], scope, moment, {_PARTS: watched_parts.state})
        # This process may be older than the platform. It may also be younger, where it was restarted.
        began = max(self._began, supervisor["created"] if supervisor else 0.0)
        rule_findings = [*_without_early_absences(evaluate(in_force, metrics, before), seconds - began), *removed]
        rule_changes = self._store.sync_findings(rule_findings, None, moment, {_METRICS: metrics})
        return Changes([*changes.raised, *rule_changes.raised], [*changes.cleared, *rule_changes.cleared])

    def _load_rules(self) -> tuple[tuple[Rule, ...], Finding]:
        """The rules in force. Where the file of rules cannot be read they are the default ones, with a finding."""
        cause = f"{system.SYSTEM}alert_rules"
        try:
            return rules(self._config), Finding(cause, state="passing")
        except AlertError as error:
            title = f"the default rules are in force, because the rules file cannot be read: {error}"
            return DEFAULT, Finding(cause, "error", title, "system", labels={"type": "settings"})


def _without_early_absences(findings: list[Finding], seconds: float) -> list[Finding]:
    """The findings `seconds` after the start. At first an absent metric is unknown: its part may still be starting."""
    if seconds >= system.START_SECONDS:
        return findings
    return [replace(f, state="unknown") if f.state == "failing" and _has_no_value(f) else f for f in findings]


def _has_no_value(finding: Finding) -> bool:
    return finding.detail is not None and finding.detail["value"] is None


def share(store: AlertStore, name: str, metrics: Mapping[str, float | None]) -> None:
    """Stores metrics for the process that evaluates the rules. They replace the earlier metrics of that name."""
    if dict(metrics) != store.remembered(SHARED + name):
        store.sync_findings([], remember={SHARED + name: dict(metrics)})


def shared(store: AlertStore) -> dict[str, float | None]:
    """All metrics that were stored by `share`, and those of the champions (`city.alerts.outcome_metrics`)."""
    return {key: value for metrics in store.remembered_below(SHARED).values() for key, value in metrics.items()}


def active(causes: Iterable[str]) -> dict[str, float | None]:
    """The metrics `domain.active.<domain>.<kind>`: how many alarms of a kind are active, by their causes."""
    kinds = Counter(tuple(cause.split("/")[1:3]) for cause in causes if cause.startswith(CAUSES))
    return {f"{_ACTIVE}{domain}.{kind}": float(count) for (domain, kind), count in kinds.items()}
