"""How severe an alarm is, from the mildest to the gravest."""

from typing import Literal

Severity = Literal["info", "warning", "error", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error", "critical")
