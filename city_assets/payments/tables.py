"""The feature table of the payments."""

from city.tables import Column, Source, Table, calendar
from city_assets.payments import transforms

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
        _DAY,
    ),
    sources={"payments": Source(table="silver/payments", days_before=1)},
    transform=transforms.payment_features,
)

TABLES = (PAYMENT_FEATURES,)
