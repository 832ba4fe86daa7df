"""The contracts of card payments, and of the chargebacks that make frauds known."""

from collections.abc import Iterator
from datetime import timedelta

from city.contracts import Contract, Field, Reference

CATEGORIES = (
    "groceries",
    "restaurant",
    "transport",
    "fuel",
    "clothing",
    "electronics",
    "jewellery",
    "travel",
    "online",
)
"""What the simulated merchants sell. Others are valid too."""
SIMULATED_REPORT = timedelta(minutes=30)
"""The time within which the owners of the simulated cards report a fraud."""
HISTORY_DAYS = (1, 7, 30)
"""The lengths (days) of the periods that a payment's `history` counts over."""
_PAYMENT = r"[A-Za-z0-9][\w.:-]*"
_CARD = r"[\w.:-]*[A-Za-z_][\w.:-]*"  # a letter is needed, so that no card's number is taken for its token
_CATEGORY = r"\w[\w .,&/'-]*"


def _position() -> Iterator[Field]:
    """Yields where the payment was made. Not every system knows it."""
    for name, largest in (("latitude", 90), ("longitude", 180)):
        yield Field(
            name=name,
            kind="float",
            unit="°",
            minimum=-largest,
            maximum=largest,
            description="WGS 84",
            nullable=True,
            within="location",
        )


def _count(name: str, description: str) -> Field:
    return Field(name=name, kind="integer", minimum=0, description=description, nullable=True, within="history")


def _history() -> Iterator[Field]:
    """Yields what an authorisation system knows of a payment's card and terminal: its velocity figures.

    Those of the card include the payment itself. Those of the terminal are of payments that are old enough for a fraud
    to be known. The lengths are those of the Fraud Detection Handbook, chapter 3 (Le Borgne et al., 2022).
    """
    for days in HISTORY_DAYS:
        period = "the last day" if days == 1 else f"the last {days} days"
        yield _count(f"card_count_{days}d", f"number of the card's payments in {period}")
        yield Field(
            name=f"card_mean_{days}d",
            kind="float",
            unit="USD",
            minimum=0,
            description=f"mean amount of the card's payments in {period}",
            nullable=True,
            within="history",
        )
    for days in HISTORY_DAYS:
        period = "a day" if days == 1 else f"{days} days"
        yield _count(f"terminal_count_{days}d", f"number of the terminal's payments in {period}, up to the delay ago")
        yield Field(
            name=f"terminal_fraud_share_{days}d",
            kind="float",
            minimum=0,
            maximum=1,
            description="share of frauds among these",
            nullable=True,
            within="history",
        )


PAYMENTS = Contract(
    name="payments",
    topic="payments",
    version=3,
    description="A payment by card.",
    key="card",
    event_time="timestamp",
    ttl=timedelta(days=7),
    fields=(
        Field(name="timestamp", kind="timestamp", description="when it was made"),
        Field(name="payment_id", kind="string", pattern=_PAYMENT, description="the payment"),
        Field(
            name="card",
            kind="string",
            pattern=_CARD,
            description="a token of the card, with a letter, never its number",
        ),
        Field(name="device", kind="string", description="terminal, phone or browser that it came from"),
        Field(name="terminal", kind="string", pattern=_PAYMENT, description="the point of sale", nullable=True),
        Field(name="merchant_category", kind="string", pattern=_CATEGORY, description="what the merchant sells"),
        Field(name="amount", kind="float", unit="USD", minimum=0.01, maximum=100_000, description="what was paid"),
        Field(name="hour_of_day", kind="integer", minimum=0, maximum=23, description="the merchant's local hour"),
        Field(name="is_weekend", kind="boolean", description="whether it was Saturday or Sunday there"),
        *_position(),
        *_history(),
    ),
)

CHARGEBACKS = Contract(
    name="chargebacks",
    topic="chargebacks",
    version=2,
    description="A card's owner says that a payment was not theirs.",
    key="payment_id",
    event_time="timestamp",
    rate="low",
    partitions=1,
    fields=(
        Field(name="timestamp", kind="timestamp", description="when it was reported"),
        Field(name="payment_id", kind="string", pattern=_PAYMENT, description="the payment"),
        Field(name="card", kind="string", pattern=_CARD, description="its card"),
    ),
    references=(Reference(field="payment_id", to="payments"),),
)

CONTRACTS = (PAYMENTS, CHARGEBACKS)
