"""The limits of machine types: the longest remaining life that is predicted, and when to act.

People edit them in the reference table `machine_types`. A transform adds them to the feature rows, in hours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNITS = ("h", "d", "cycles")
"""The units of a life, in the reference table `machine_types`."""
DEFAULT_KIND = "default"
"""The row of `machine_types` for machines whose kind has no row of its own."""
NO_ACTION = "none", "low"


@dataclass(frozen=True)
class LifeLimits:
    """The limits of a machine type. All but `unit` are in hours."""

    cap: float
    """The longest remaining life that is predicted. Wear shows in the signals only towards the end of a life."""
    order_below: float
    replace_below: float
    stop_below: float
    unit: str = "h"
    unit_hours: float = 1.0
    """The hours of one unit."""

    def hours_of(self, share: float) -> float:
        """Returns the hours of a predicted share of the cap."""
        return min(max(share, 0.0), 1.0) * self.cap

    def recommended(self, hours: float) -> tuple[str, str]:
        """Returns the action that is recommended for at least so many remaining hours, and its priority."""
        for name, action, priority in ACTIONS:
            if hours < getattr(self, name):
                return action, priority
        return NO_ACTION


ACTIONS = (
    ("stop_below", "stop it and replace the worn parts", "critical"),
    ("replace_below", "replace the worn parts in this shift", "high"),
    ("order_below", "order parts, and plan a stop", "medium"),
)
"""The limit (of LifeLimits) below which an action is recommended, the action, and its priority."""
DEFAULT_LIMITS = LifeLimits(cap=1.0, order_below=0.7, replace_below=0.3, stop_below=0.1)
"""The limits where the table has no row, neither of the machine's kind nor the default's. They are the simulated
fleet's: its mean life is two hours, and wear shows in the last one."""
LIMIT_COLUMNS = {
    "life_cap_hours": "cap",
    "order_below_hours": "order_below",
    "replace_below_hours": "replace_below",
    "stop_below_hours": "stop_below",
    "life_unit": "unit",
    "life_unit_hours": "unit_hours",
}
"""The attributes of LifeLimits by the names of their columns in a feature table."""


def default_type() -> dict[str, object]:
    """Returns the default row of the reference table `machine_types`, with which the table is shipped."""
    limits = DEFAULT_LIMITS
    return {
        "kind": DEFAULT_KIND,
        "life_unit": limits.unit,
        "life_cap": limits.cap,
        "order_below": limits.order_below,
        "replace_below": limits.replace_below,
        "stop_below": limits.stop_below,
    }


def limits_of(features: Mapping[str, Any]) -> LifeLimits:
    """Returns the limits in a feature row. The row of an earlier release has none, and gets DEFAULT_LIMITS."""
    limits = {name: value for column, name in LIMIT_COLUMNS.items() if (value := features.get(column)) is not None}
    return LifeLimits(**limits) if len(limits) == len(LIMIT_COLUMNS) else DEFAULT_LIMITS
