"""The alarms of the payments: cards that somebody other than the owner pays with."""

from collections.abc import Mapping
from datetime import timedelta

from city.alerts.conditions import Condition, Message, Persistence, largest_first
from city_assets.payments.models import FRAUDS


def _level(message: Message, usual: float | None) -> float | None:
    """Returns the fraud probability divided by the model's cost threshold. Returns None for a version without one."""
    threshold = message["threshold"]
    return float(message["fraud_probability"] / threshold) if threshold else None


def _title(message: Message) -> str:
    return (
        f"{message['card']}: a payment of {message['amount']:,.2f} USD is a fraud with a probability of "
        f"{message['fraud_probability']:.0%}, and a look is worth it from {message['threshold']:.0%} on"
    )


def _detail(message: Message) -> Mapping[str, object]:
    return {
        "payment_id": message["payment_id"],
        "amount": message["amount"],
        "probability": message["fraud_probability"],
        "threshold": message["threshold"],
        "contributions": largest_first(message.get("feature_contributions")),
        "model_version": message.get("model_version"),
        "event": message.get("id"),
        "at": message["timestamp"],
    }


assert FRAUDS.stream is not None

FRAUD = Condition(
    kind="fraud",
    description="Somebody else pays with a card.",
    type="fraud",
    topic=FRAUDS.stream.topic,
    key="card",
    level=_level,
    raised_by=(Persistence(level=1.0, count=1, messages=1),),
    clear_below=1.0,
    calm_for=timedelta(minutes=10),
    forgotten_after=timedelta(minutes=10),
    # From the threshold on, a review is worth its cost. That is far below the probability at which a fraud is likely.
    severities=((0.0, "info"), (0.5, "warning")),
    gravity=lambda message: float(message["fraud_probability"]),
    title=_title,
    detail=_detail,
)

ALARMS = (FRAUD,)
