"""One look at the platform: the parts and the disk, the rules, and what is due to be told."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from city.alerts import backlog, system
from city.alerts.conditions import CAUSES
from city.alerts.lease import Lease
from city.alerts.model import AlertError, Finding, Rule
from city.alerts.rules import DEFAULT, evaluate, rules, source_metrics, stream_metrics
from city.alerts.store import AlertStore, Changes
from city.settings import Settings
from city.stack.state import SUPERVISOR, read_json
from city.stack.status import is_stopping, parts

RULES = "rule/"
_METRICS, _PARTS, _ACTIVE = "metrics", "parts", "domain.active."
Asked = Callable[[], Mapping[str, str | None]]
"""Asks servers; why each does not answer, None for one that does."""
Own = Callable[[], Mapping[str, float | None]]


@dataclass(frozen=True)
class Watched:
    """What one look came to: alarms that were raised, cleared and escalated."""

    reported: Changes
    escalated: int

    def __str__(self) -> str:
        raised, cleared = len(self.reported.raised), len(self.reported.cleared)
        return f"{raised} raised, {cleared} cleared, {self.escalated} escalated"


class Watch:
    """Looks at the platform for as long as nobody else does: of several servers, and Dagster's sensor, the one that
    holds the lease judges. What is to be told is sent by others (`city.alerts.dispatch`), who may have to wait."""

    def __init__(
        self,
        config: Settings,
        store: AlertStore,
        asked: Asked | None = None,
        own: Own = dict,
        began: datetime | None = None,
    ) -> None:
        """`own` gives metrics that only this process has; `began` is when the platform was started (now)."""
        self._config, self._store, self._asked, self._own = config, store, asked, own
        self._lease = Lease(config.alerts_store, "watch")
        self._began = (began or datetime.now(UTC)).timestamp()

    def look(self, now: datetime | None = None) -> Watched:
        """Judges, and lets time pass for the alarms. Call it every few seconds."""
        moment = now or datetime.now(UTC)
        try:
            reported = self._judge(moment) if self._lease.acquire() else Changes([], [])
        finally:  # what cannot be judged must not keep back what is known
            escalated = self._store.tick(timedelta(minutes=self._config.alert_escalate_minutes), moment)
        return Watched(reported, len(escalated))

    def close(self) -> None:
        """Lets another one judge."""
        self._lease.release()

    def _judge(self, moment: datetime) -> Changes:
        if is_stopping(self._config):
            return Changes([], [])
        seconds, before = moment.timestamp(), self._store.remembered(_METRICS) or {}
        room, metrics = system.disk(self._config.home, self._config.disk_free_gb)
        supervisor = read_json(self._config, SUPERVISOR)
        platform = [supervisor["pid"], supervisor["created"]] if supervisor else None
        known = system.Parts(self._store.remembered(_PARTS))
        asked = self._asked() if self._asked else None
        found = [*known.findings(parts(self._config), asked, seconds, platform), room]
        in_force, readable = self._rules()
        metrics |= system.metrics(found) | stream_metrics(self._config, seconds) | source_metrics(self._config)
        causes = self._store.active_causes()
        metrics.update(self._own())
        metrics |= dict.fromkeys((name for name in before if name.startswith(_ACTIVE)), 0.0) | active(causes)
        metrics |= shared(self._store)
        names = {rule.name for rule in in_force}
        held = [cause for cause in causes if cause.startswith(RULES)]
        gone = [Finding(cause, state="passing") for cause in held if cause.split("/")[1] not in names]
        # Who asks no server knows nothing of them.
        scope = system.SYSTEM if self._asked else None
        found += backlog.findings(self._store, self._config, causes, moment, self._began)
        done = self._store.sync_findings([*found, readable], scope, moment, {_PARTS: known.state})
        # This process may be older than the platform, or younger, where it was started again.
        began = max(self._began, supervisor["created"] if supervisor else 0.0)
        of_rules = [*_patient(evaluate(in_force, metrics, before), seconds - began), *gone]
        ruled = self._store.sync_findings(of_rules, None, moment, {_METRICS: metrics})
        return Changes([*done.raised, *ruled.raised], [*done.cleared, *ruled.cleared])

    def _rules(self) -> tuple[tuple[Rule, ...], Finding]:
        """The rules in force; those that we bring where the file of others cannot be read, which is a finding."""
        cause = f"{system.SYSTEM}alert_rules"
        try:
            return rules(self._config), Finding(cause, state="passing")
        except AlertError as error:
            said = f"the rules that we bring are in force, since others cannot be read: {error}"
            return DEFAULT, Finding(cause, "error", said, "system", labels={"type": "settings"})


def _patient(found: list[Finding], seconds: float) -> list[Finding]:
    """What is absent while everything is still starting may be on its way."""
    if seconds >= system.START_SECONDS:
        return found
    return [replace(f, state="unknown") if f.state == "failing" and _is_of_nothing(f) else f for f in found]


def _is_of_nothing(finding: Finding) -> bool:
    return finding.detail is not None and finding.detail["value"] is None


def share(store: AlertStore, name: str, metrics: Mapping[str, float | None]) -> None:
    """Hands metrics to whoever evaluates the rules, in place of those of that name from before."""
    if dict(metrics) != store.remembered(f"{_METRICS}/{name}"):
        store.sync_findings([], remember={f"{_METRICS}/{name}": dict(metrics)})


def shared(store: AlertStore) -> dict[str, float | None]:
    """All metrics that were handed over."""
    return {key: value for metrics in store.remembered_below(f"{_METRICS}/").values() for key, value in metrics.items()}


def active(causes: Iterable[str]) -> dict[str, float | None]:
    """`domain.active.<domain>.<kind>`: how many alarms of a kind are active, by the causes of those that are."""
    kinds = Counter(tuple(cause.split("/")[1:3]) for cause in causes if cause.startswith(CAUSES))
    return {f"{_ACTIVE}{domain}.{kind}": float(count) for (domain, kind), count in kinds.items()}
