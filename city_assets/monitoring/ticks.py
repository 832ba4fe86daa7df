"""Turns the ticks of Dagster's sensors and schedules into findings: those whose evaluation fails again and again."""

import dagster as dg

from city.alerts.model import Finding

TICKS = "tick/"
"""The prefix of the findings' causes."""
_FAILED = 3
"""So many ticks in a row fail before there is an alarm. One may fail while the code location is loaded again."""


def tick_findings(instance: dg.DagsterInstance) -> list[Finding]:
    """Returns, for each running sensor and schedule, a finding on whether its last ticks failed.

    One that is stopped passes, because it is not evaluated.
    """
    findings: list[Finding] = []
    if instance.schedule_storage is None:  # an ephemeral instance evaluates no sensor
        return findings
    for instigator in instance.all_instigator_state():
        name, kind = instigator.instigator_name, instigator.instigator_type.value.lower()
        ticks = instance.get_ticks(instigator.instigator_origin_id, instigator.selector_id, limit=_FAILED + 1)
        ended = [tick for tick in ticks if tick.is_completed][:_FAILED]
        fails = instigator.is_running and len(ended) == _FAILED and all(tick.is_failure for tick in ended)
        error = ended[0].error if fails else None
        findings.append(
            Finding(
                f"{TICKS}{name}",
                "error",
                f"the {kind} {name} has failed {_FAILED} times in a row, and does nothing" if fails else "",
                "runs",
                {"error": error.message.strip()} if error is not None else None,
                "failing" if fails else "passing",
                {"instigator": name, "type": "tick"},
            )
        )
    return findings
