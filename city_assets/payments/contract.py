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
"""What the simulated merchants sell. Others are valid too."""
SIMULATED_REPORT = timedelta(minutes=30)
"""The time within which the owners of the simulated cards report a fraud."""
_PAYMENT = r"[A-Za-z0-9][\w.:-]*"
_CARD = r"[\w.:-]*[A-Za-z_][\w.:-]*"  # a letter is needed, so that no card's number is taken for its token
_CATEGORY = r"\w[\w .,&/'-]*"

PAYMENTS = Contract(
    name="payments",
    topic="payments",
    version=2,
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
        Field(name="merchant_category", kind="string", pattern=_CATEGORY, description="what the merchant sells"),
        Field(name="amount", kind="float", unit="USD", minimum=0.01, maximum=100_000, description="what was paid"),
        Field(name="hour_of_day", kind="integer", minimum=0, maximum=23, description="the merchant's local hour"),
        Field(name="is_weekend", kind="boolean", description="whether it was Saturday or Sunday there"),
        Field(
            name="latitude", kind="float", unit="°", minimum=-90, maximum=90, description="WGS 84", within="location"
        ),
        Field(
            name="longitude", kind="float", unit="°", minimum=-180, maximum=180, description="WGS 84", within="location"
        ),
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
