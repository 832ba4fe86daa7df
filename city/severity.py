"""The severities of alarms, from the lowest to the highest."""

from typing import Literal

Severity = Literal["info", "warning", "error", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error", "critical")
