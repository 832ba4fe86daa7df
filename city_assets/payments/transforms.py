"""The transform of the payments' feature table: a function of frames, on any engine."""

import math
from collections.abc import Iterable

import narwhals as nw

from city.tables.model import Frame
from city_assets.payments.contract import HISTORY_DAYS

BEFORE = 8
"""The number of earlier payments of the card that a payment is compared with."""
_DAY_SECONDS = 86_400
_HOUR, _MINUTES = 3600, 600
_UNUSUAL = 3.0
"""A payment of more than so many times the card's mean of 30 days is unusual."""
_KM_PER_DEGREE = 111.32
_COSINE = math.cos(
    math.radians(40.7)
)  # at the city's latitude: an approximation is enough for distances between payments


def payment_features(payments: Frame) -> Frame:
    """Compares each payment with its card's last payments of at most one day, and with the history that it comes with.

    The features are the time and the distance between payments, the amounts, and whether the device and the merchant
    category are new. A payment without `history` has null for what is made from it.
    """
    # A card's first payment in the period has a mean of its own amount, or none. One dollar keeps small means apart.
    usual = nw.col("card_mean_30d") + 1.0
    features = payments.with_columns(
        seconds=nw.col("_timestamp_seconds"),
        amount_to_mean_30d=nw.col("amount") / usual,
        mean_1d_to_30d=nw.col("card_mean_1d") / usual,
        mean_7d_to_30d=nw.col("card_mean_7d") / usual,
        **{
            # A share such as a third is not exact, and a number of frauds is whole.
            f"terminal_frauds_{days}d": (
                nw.col(f"terminal_fraud_share_{days}d") * nw.col(f"terminal_count_{days}d")
            ).round(0)
            for days in HISTORY_DAYS
        },
    )
    columns = ("seconds", "amount", "device", "merchant_category", "amount_to_mean_30d")
    features = features.with_columns(
        **{f"_{name}_{n}": _earlier_value(name, n) for n in range(1, BEFORE + 1) for name in columns},
        _latitude=_earlier_value("latitude", 1),
        _longitude=_earlier_value("longitude", 1),
    )
    each = range(1, BEFORE + 1)
    seconds_apart = {n: nw.col("seconds") - nw.col(f"_seconds_{n}") for n in each}
    recent = {n: seconds_apart[n] <= _DAY_SECONDS for n in each}
    amounts = [nw.when(recent[n]).then(nw.col(f"_amount_{n}")) for n in each]
    to_mean = [nw.when(recent[n]).then(nw.col(f"_amount_to_mean_30d_{n}")) for n in each]
    km = _distance_km()
    return features.with_columns(
        seconds_since_last=nw.when(recent[1]).then(seconds_apart[1]).cast(nw.Float64),
        seconds_since_third=nw.when(recent[3]).then(seconds_apart[3]).cast(nw.Float64),
        payments_10min=_count(seconds_apart[n] <= _MINUTES for n in each),
        payments_1h=_count(seconds_apart[n] <= _HOUR for n in each),
        amount_to_usual=nw.when(recent[1]).then(nw.col("amount") / nw.mean_horizontal(*amounts)),
        amount_to_largest=nw.when(recent[1]).then(nw.col("amount") / nw.max_horizontal(*amounts)),
        km_from_last=nw.when(recent[1]).then(km),
        kmh_from_last=nw.when(recent[1]).then(km * _HOUR / (seconds_apart[1] + 1)),
        same_device=_count(recent[n] & (nw.col("device") == nw.col(f"_device_{n}")) for n in each),
        same_category=_count(
            recent[n] & (nw.col("merchant_category") == nw.col(f"_merchant_category_{n}")) for n in each
        ),
        payments_known=_count(recent[n] for n in each),
        largest_to_mean_30d=nw.max_horizontal("amount_to_mean_30d", *to_mean),
        unusual_known=nw.when(~nw.col("amount_to_mean_30d").is_null()).then(
            _count(ratio > _UNUSUAL for ratio in (nw.col("amount_to_mean_30d"), *to_mean))
        ),
        is_online=nw.col("merchant_category") == "online",
    )


def _earlier_value(name: str, n: int) -> nw.Expr:
    # Payments of one second have no order of their own. That of their names is the same in each computation.
    return nw.col(name).shift(n).over("card", order_by=("timestamp", "payment_id"))


def _count(conditions: Iterable[nw.Expr]) -> nw.Expr:
    """Counts the conditions that are true. A condition on a payment that does not exist is not true."""
    return nw.sum_horizontal(*(c.cast(nw.Int64).fill_null(0) for c in conditions)).cast(nw.Float64)


def _distance_km() -> nw.Expr:
    """Returns the straight distance on a flat map, in km. Within a continent, the error is a few per cent."""
    north = (nw.col("latitude") - nw.col("_latitude")) * _KM_PER_DEGREE
    east = (nw.col("longitude") - nw.col("_longitude")) * _KM_PER_DEGREE * _COSINE
    return (north * north + east * east).sqrt()
