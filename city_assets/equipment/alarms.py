"""The alarms of the machines: readings that stay anomalous, and machines that are about to fail."""

from collections.abc import Mapping
from datetime import timedelta

from city.alerts.conditions import Condition, Message, Persistence, largest_first
from city_assets.equipment.limits import DEFAULT_LIMITS
from city_assets.equipment.models import ANOMALIES, LIFE

CRITICAL_HOURS = DEFAULT_LIMITS.stop_below
"""The limit of a message of an earlier release, which has none."""
_LEAST_SHARE = 0.01
"""A level is at most that of so large a share of the limit."""
_IN_MINUTES = 2
_ALIKE = 0.7
"""Contributions of at least this share of the largest are told beside it.

A machine's signals depend on each other: where one relation between three of them is broken, any of the three can be
the one that is wrong, and their contributions are alike.
"""


def _anomaly_level(message: Message, usual: float | None) -> float:
    return float(message["anomaly_score"] / message["threshold"])


def _anomaly_title(message: Message) -> str:
    shares = largest_first(message["feature_contributions"])
    signals = [name for name, share in shares.items() if share >= _ALIKE * max(shares.values())]
    return (
        f"{message['machine_id']}: anomalous readings, {_anomaly_level(message, None):.3g} times the limit, "
        f"mostly by {' or '.join(signals) or 'no single signal'}"
    )


def _anomaly_detail(message: Message) -> Mapping[str, object]:
    return {
        "score": message["anomaly_score"],
        "threshold": message["threshold"],
        "contributions": largest_first(message["feature_contributions"]),
        **_message_source(message),
    }


def _life_level(message: Message, usual: float | None) -> float:
    """Returns the level from the lower end of the interval, which also decides the recommended action."""
    limit = message.get("stop_below_hours", CRITICAL_HOURS)
    if limit <= 0:  # a machine of this kind is never stopped for its remaining life
        return 0.0
    return float(limit / max(message["confidence_interval"][0], _LEAST_SHARE * limit))


def _life_title(message: Message) -> str:
    """Returns the title with the remaining life in its unit, or in minutes where it is below two hours."""
    hours, least = message["predicted_rul_hours"], message["confidence_interval"][0]
    unit = message.get("life_unit", "h")
    if unit == "h" and hours < _IN_MINUTES:
        life, least, unit = hours * 60, least * 60, "minutes"
    elif unit == "h":
        life, unit = hours, "hours"
    else:
        life, least = message["remaining_life"], message["remaining_life_interval"][0]
        unit = "days" if unit == "d" else unit
    return (
        f"{message['machine_id']}: {life:.0f} {unit} of life left, perhaps {least:.0f}: {message['recommended_action']}"
    )


def _life_detail(message: Message) -> Mapping[str, object]:
    return {
        "hours_left": message["predicted_rul_hours"],
        "left": message.get("remaining_life"),
        "unit": message.get("life_unit"),
        "interval": message["confidence_interval"],
        "action": message["recommended_action"],
        "contributions": largest_first(message.get("feature_contributions")),
        **_message_source(message),
    }


def _message_source(message: Message) -> dict[str, object]:
    return {"model_version": message.get("model_version"), "event": message.get("id"), "at": message["timestamp"]}


assert ANOMALIES.stream is not None
assert LIFE.stream is not None

ANOMALY = Condition(
    kind="anomaly",
    description="A machine's readings stay far from normal.",
    type="machine_anomaly",
    topic=ANOMALIES.stream.topic,
    key="machine_id",
    level=_anomaly_level,
    # A machine reports every five seconds. A strong anomaly raises the alarm at its second reading, a weaker one within
    # a minute. Levels below twice the limit come from wear, which the alarm of the remaining life covers.
    raised_by=(Persistence(level=3.0, count=2, messages=2), Persistence(level=2.0, count=10, messages=12)),
    clear_below=0.8,
    calm_for=timedelta(seconds=60),
    forgotten_after=timedelta(minutes=15),
    severities=((1.0, "warning"), (10.0, "error")),
    title=_anomaly_title,
    detail=_anomaly_detail,
)

REMAINING_LIFE = Condition(
    kind="remaining_life",
    description="A machine is about to fail.",
    type="remaining_life",
    topic=LIFE.stream.topic,
    key="machine_id",
    level=_life_level,
    # A remaining life is predicted each minute. One prediction may be wrong, so two of three raise the alarm. A worn
    # machine does not become new, so the alarm clears only after ten good minutes.
    raised_by=(Persistence(level=1.0, count=2, messages=3),),
    clear_below=0.4,
    calm_for=timedelta(minutes=10),
    forgotten_after=timedelta(minutes=30),
    severities=((1.0, "critical"),),
    title=_life_title,
    detail=_life_detail,
)

ALARMS = (ANOMALY, REMAINING_LIFE)
