"""The feature table of the payments."""

from collections.abc import Iterator

from city.tables import Column, Source, Table, calendar
from city_assets.payments import transforms
from city_assets.payments.contract import HISTORY_DAYS

_DAY = calendar.COLUMNS[0]


def _feature(
    name: str, description: str, source_column: str, unit: str | None = None, nullable: bool = False
) -> Column:
    return Column(
        name=name,
        kind="float",
        unit=unit,
        description=description,
        nullable=nullable,
        origins=(f"payments.{source_column}",),
    )


def _of_history() -> Iterator[Column]:
    """Yields the features of a payment's history. They are null for a payment that comes without it."""
    for days in HISTORY_DAYS:
        name = f"card_count_{days}d"
        description = f"how many payments of the card there were in {days} d"
        yield Column(name=name, kind="integer", description=description, nullable=True, origins=(f"payments.{name}",))
    yield _feature("amount_to_mean_30d", "the amount over the card's mean of 30 d", "card_mean_30d", nullable=True)
    for days in HISTORY_DAYS[:-1]:
        name = f"card_mean_{days}d"
        yield _feature(f"mean_{days}d_to_30d", f"the card's mean of {days} d over that of 30 d", name, nullable=True)
    for name, description in (
        ("largest_to_mean_30d", "the largest amount_to_mean_30d of this payment and of the last eight"),
        ("unusual_known", "of this payment and the last eight, those of over three times the card's mean of 30 d"),
    ):
        yield _feature(name, description, "card_mean_30d", nullable=True)
    for days in HISTORY_DAYS:
        source = f"terminal_fraud_share_{days}d"
        yield _feature(source, f"of the terminal's older payments in {days} d, the share of frauds", source, None, True)
        yield _feature(f"terminal_frauds_{days}d", f"of these in {days} d, the number of frauds", source, None, True)


PAYMENT_FEATURES = Table(
    name="payment_features",
    layer="features",
    description="What a payment looks like beside the last ones of its card.",
    key=("card", "timestamp"),
    time="timestamp",
    look_back=transforms.BEFORE,
    columns=(
        Column(name="card", kind="string", description="the card", origins=("payments.card",)),
        Column(name="timestamp", kind="timestamp", description="when it was made", origins=("payments.timestamp",)),
        Column(name="payment_id", kind="string", description="the payment", origins=("payments.payment_id",)),
        _feature("amount", "what was paid", "amount", "USD"),
        Column(name="hour_of_day", kind="integer", description="the local hour", origins=("payments.hour_of_day",)),
        Column(name="is_weekend", kind="boolean", description="whether on a weekend", origins=("payments.is_weekend",)),
        Column(name="is_online", kind="boolean", description="whether online", origins=("payments.merchant_category",)),
        _feature("seconds_since_last", "since the card's last payment", "timestamp", "s", nullable=True),
        _feature("seconds_since_third", "since the third before", "timestamp", "s", nullable=True),
        _feature("payments_10min", "of the last eight, those within ten minutes", "timestamp"),
        _feature("payments_1h", "of the last eight, those within an hour", "timestamp"),
        _feature("amount_to_usual", "the amount over the mean of the last eight", "amount", nullable=True),
        _feature("amount_to_largest", "the amount over the largest of the last eight", "amount", nullable=True),
        _feature("km_from_last", "how far from the last payment", "latitude", "km", nullable=True),
        _feature("kmh_from_last", "how fast one would have had to go", "latitude", "km/h", nullable=True),
        _feature("same_device", "of the last eight, those by this device", "device"),
        _feature("same_category", "of the last eight, those at such merchants", "merchant_category"),
        _feature("payments_known", "how many of the last eight there are", "timestamp"),
        Column(
            name="merchant_category",
            kind="string",
            description="what the merchant sells",
            nullable=True,
            origins=("payments.merchant_category",),
        ),
        *_of_history(),
        _DAY,
    ),
    sources={"payments": Source(table="silver/payments", days_before=1)},
    transform=transforms.payment_features,
)

TABLES = (PAYMENT_FEATURES,)
