"""What an alarm is, and the rules that raise one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from city.severity import SEVERITIES, Severity

State = Literal["failing", "passing", "unknown"]
Event = Literal["raised", "graver", "acknowledged", "flapping", "cleared"]
Operator = Literal["greater", "less", "equals", "absent", "changed"]


class AlertError(ValueError):
    """What cannot be done with an alarm, a rule or a channel; the message names it and the mend."""


@dataclass(frozen=True)
class Finding:
    """What a look at one thing found. `cause` names the thing for good: the same cause is the same alarm.

    Failing raises the alarm or repeats it, passing clears it, unknown (a look that is under way, was skipped, or could
    not be taken) changes nothing. `labels` say what it is about, for programs: `machine_id`, `card`, `cell`,
    `location`, `type`.
    """

    cause: str
    severity: Severity = "warning"
    title: str = ""
    group: str = ""
    detail: Mapping[str, Any] | None = None
    state: State = "failing"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Alarm:
    """One cause's alarm, in one of four states: active or cleared, by acknowledged or not."""

    id: int
    cause: str
    severity: Severity
    title: str
    group: str
    active: bool
    acknowledged: bool
    count: int
    first_at: datetime
    last_at: datetime
    assignee: str | None
    escalations: int
    flapping: bool = False
    """It came and went so often that only this was told, and the end of it will be."""
    silenced: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    detail: Mapping[str, Any] | None = None

    @property
    def state(self) -> str:
        return f"{'active' if self.active else 'cleared'}, {'acknowledged' if self.acknowledged else 'unacknowledged'}"

    @property
    def open(self) -> bool:
        """Until it is both cleared and acknowledged, it is somebody's business."""
        return self.active or not self.acknowledged


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A condition on a metric; `metric` may end in * for every metric that begins so.

    greater, less and equals compare with `value`; absent holds while the metric is not there, or is null; changed
    holds when it differs from what it was at the evaluation before.
    """

    name: str
    metric: str
    operator: Operator
    severity: Severity = "warning"
    value: float | None = None
    means: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "metric", "means"):
            if not isinstance(text := getattr(self, name), str) or (not text and name != "means"):
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
        """One for each metric of its name: whether the condition holds, or that it cannot be told."""
        names = [self.metric]
        if self.metric.endswith("*"):
            names = sorted(name for name in metrics if name.startswith(self.metric[:-1]))
        return [self._finding(name, metrics.get(name), self._state(name, metrics, before)) for name in names]

    def _state(self, name: str, metrics: Mapping[str, float | None], before: Mapping[str, float | None]) -> State:
        value = metrics.get(name)
        if value is not None and math.isnan(value):  # a share of nothing
            value = None
        if self.operator == "absent":
            return "failing" if value is None else "passing"
        if value is None or (self.operator == "changed" and before.get(name) is None):
            return "unknown"
        if self.operator == "changed":
            return "failing" if before[name] != value else "passing"
        assert self.value is not None
        held = {"greater": value > self.value, "less": value < self.value, "equals": value == self.value}
        return "failing" if held[self.operator] else "passing"

    def _finding(self, name: str, value: float | None, state: State) -> Finding:
        limit = "" if self.value is None else f" {self.value:g}"
        said = (
            "is absent"
            if self.operator == "absent"
            else f"is {value:g}: {self.operator}{limit}"
            if value is not None
            else "is not known"
        )
        return Finding(
            cause=f"rule/{self.name}/{name}",
            severity=self.severity,
            title=f"{name} {said}" + (f" ({self.means})" if self.means else ""),
            group=name.split(".")[0],
            detail={"metric": name, "value": value, "rule": self.name},
            state=state,
        )
