"""Findings, alarms, and the rules on metrics that raise alarms."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from city.severity import SEVERITIES, Severity

State = Literal["failing", "passing", "unknown"]
Event = Literal["raised", "graver", "acknowledged", "flapping", "cleared"]
Operator = Literal["greater", "less", "equals", "absent", "changed"]


class AlertError(ValueError):
    """Something that cannot be done with an alarm, a rule or a channel. The message names it and the fix."""


@dataclass(frozen=True)
class Finding:
    """The result of a check of one thing. `cause` identifies the thing for good: the same cause is the same alarm.

    The state `failing` raises the alarm or repeats it, and `passing` clears it. The state `unknown` (a check that is
    under way, was skipped, or was impossible) changes nothing. `labels` tell programs what the finding is about: the
    field that identifies it (such as a stream's key) with its value, and `type`, the kind of finding.
    """

    cause: str
    severity: Severity = "warning"
    title: str = ""
    group: str = ""
    detail: Mapping[str, object] | None = None
    state: State = "failing"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Alarm:
    """The alarm of one cause. It has four states: active or cleared, and acknowledged or not."""

    id: int
    cause: str
    severity: Severity
    title: str
    group: str
    active: bool
    acknowledged: bool
    count: int
    """How many times the cause was reported as failing."""
    first_at: datetime
    last_at: datetime
    assignee: str | None
    escalations: int
    """How many times the severity rose because nobody acknowledged the alarm."""
    flapping: bool = False
    """Whether the alarm was raised and cleared so often that messages tell only this, and later its end."""
    silenced: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    detail: Mapping[str, object] | None = None

    @property
    def state(self) -> str:
        """The state in words, such as "active, unacknowledged"."""
        return f"{'active' if self.active else 'cleared'}, {'acknowledged' if self.acknowledged else 'unacknowledged'}"

    @property
    def open(self) -> bool:
        """Whether somebody must still deal with the alarm: until it is both cleared and acknowledged."""
        return self.active or not self.acknowledged


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A condition on a metric. `metric` may end in *, for every metric whose name begins so.

    The operators greater, less and equals compare the metric with `value`. absent is true while the metric does not
    exist, or is null. changed is true when the metric differs from its value at the evaluation before.
    """

    name: str
    metric: str
    operator: Operator
    severity: Severity = "warning"
    value: float | None = None
    description: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "metric", "description"):
            if not isinstance(text := getattr(self, name), str) or (not text and name != "description"):
                raise AlertError(f"rule {self.name!r}: {name} is {text!r}, and must be a text")
        if "/" in self.name:
            raise AlertError(f"rule {self.name!r}: a name must not have a slash, which parts the causes of alarms")
        if self.value is not None and (isinstance(self.value, bool) or not isinstance(self.value, int | float)):
            raise AlertError(f"rule {self.name!r}: value is {self.value!r}, and must be a number")
        if self.value is not None and not math.isfinite(self.value):
            raise AlertError(f"rule {self.name!r}: value is {self.value!r}, which nothing compares with: give a number")
        if self.operator not in ("greater", "less", "equals", "absent", "changed"):
            raise AlertError(
                f"rule {self.name!r}: no operator {self.operator!r}; known: greater, less, equals, absent, changed"
            )
        if self.severity not in SEVERITIES:
            raise AlertError(f"rule {self.name!r}: no severity {self.severity!r}; known: {', '.join(SEVERITIES)}")
        if self.operator in ("greater", "less", "equals") and self.value is None:
            raise AlertError(f"rule {self.name!r}: {self.operator} needs a value")
        if self.operator == "absent" and self.metric.endswith("*"):
            raise AlertError(f"rule {self.name!r}: absent needs the whole name of a metric")

    def findings(self, metrics: Mapping[str, float | None], before: Mapping[str, float | None]) -> list[Finding]:
        """One finding for each metric that the rule names: failing, passing, or unknown where there is no value.

        `before` are the metrics of the evaluation before.
        """
        names = [self.metric]
        if self.metric.endswith("*"):
            names = sorted(name for name in metrics if name.startswith(self.metric[:-1]))
        return [self._make_finding(name, metrics.get(name), self._evaluate(name, metrics, before)) for name in names]

    def _evaluate(self, name: str, metrics: Mapping[str, float | None], before: Mapping[str, float | None]) -> State:
        value = metrics.get(name)
        if value is not None and math.isnan(value):  # a share where the whole is zero
            value = None
        if self.operator == "absent":
            return "failing" if value is None else "passing"
        if value is None or (self.operator == "changed" and before.get(name) is None):
            return "unknown"
        if self.operator == "changed":
            return "failing" if before[name] != value else "passing"
        assert self.value is not None
        results = {"greater": value > self.value, "less": value < self.value, "equals": value == self.value}
        return "failing" if results[self.operator] else "passing"

    def _make_finding(self, name: str, value: float | None, state: State) -> Finding:
        limit = "" if self.value is None else f" {self.value:g}"
        comparison = (
            "is absent"
            if self.operator == "absent"
            else f"is {value:g}: {self.operator}{limit}"
            if value is not None
            else "is not known"
        )
        return Finding(
            cause=f"rule/{self.name}/{name}",
            severity=self.severity,
            title=f"{name} {comparison}" + (f" ({self.description})" if self.description else ""),
            group=name.split(".")[0],
            detail={"metric": name, "value": value, "rule": self.name},
            state=state,
        )
