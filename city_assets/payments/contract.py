"""The contracts of card payments, and of the chargebacks that make frauds known."""

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
REPORTED_WITHIN = timedelta(minutes=30)
"""A payment that nobody reports within this time counts as genuine. A real city would wait for weeks."""
_PAYMENT = "pay_[0-9a-f]{16}"
_CARD = "card_[0-9]{5}"

PAYMENTS = Contract(
    name="payments",
    topic="payments",
    version=1,
    means="A payment by card.",
    key="card",
    event_time="timestamp",
    ttl=timedelta(days=7),
    fields=(
        Field(name="timestamp", kind="timestamp", means="when it was made"),
        Field(name="payment_id", kind="string", pattern=_PAYMENT, means="pay_<16 hexadecimal digits>"),
        Field(name="card", kind="string", pattern=_CARD, means="a token of the card, never its number"),
        Field(name="device", kind="string", means="terminal, phone or browser that it came from"),
        Field(name="merchant_category", kind="string", choices=CATEGORIES, means="what the merchant sells"),
        Field(name="amount", kind="float", unit="USD", minimum=0.01, maximum=100_000, means="what was paid"),
        Field(name="hour_of_day", kind="integer", minimum=0, maximum=23, means="the merchant's local hour"),
        Field(name="is_weekend", kind="boolean", means="whether it was Saturday or Sunday there"),
        Field(name="latitude", kind="float", unit="°", minimum=-90, maximum=90, means="WGS 84", within="location"),
        Field(name="longitude", kind="float", unit="°", minimum=-180, maximum=180, means="WGS 84", within="location"),
    ),
)

CHARGEBACKS = Contract(
    name="chargebacks",
    topic="chargebacks",
    version=1,
    means="A card's owner says that a payment was not theirs.",
    key="payment_id",
    event_time="timestamp",
    rate="low",
    partitions=1,
    fields=(
        Field(name="timestamp", kind="timestamp", means="when it was reported"),
        Field(name="payment_id", kind="string", pattern=_PAYMENT, means="the payment"),
        Field(name="card", kind="string", pattern=_CARD, means="its card"),
    ),
    references=(Reference(field="payment_id", to="payments"),),
)

CONTRACTS = (PAYMENTS, CHARGEBACKS)
