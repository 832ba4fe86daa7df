"""The day's payments: how many, how much, and what of it was not the owner's."""

from datetime import date

import polars as pl

from city.lake.tables import scan
from city.live.facts import WEEK, Fact, of_day, some
from city.models.predictions import PREDICTION, scores_schema
from city.settings import Settings
from city.tables.model import DAY
from city_assets.payments.models import FRAUD, FRAUDS

_PAYMENTS, _CHARGEBACKS = "silver/payments", "silver/chargebacks"


def today(config: Settings, day: date) -> list[Fact]:
    (count, dollars), (then, dollars_then) = (paid(config, of) for of in (day, day - WEEK))
    if not count:
        return [Fact("payments", "Nothing is known of today's payments yet.")]
    reported = of_day(config, _CHARGEBACKS, day, "timestamp").select(pl.len()).collect().item()
    flagged = scan(config.lake / "scores" / FRAUDS.name, scores_schema(FRAUDS) | {DAY: pl.Date()})
    held = flagged.filter(pl.col(DAY) == day, pl.col(PREDICTION) == FRAUD).select(pl.len()).collect().item()
    sentence = f"{some(count, 'payment').capitalize()} of {dollars:,.0f} dollars in all were made; "
    sentence += f"{some(reported, 'payment')} {'were' if reported > 1 else 'was'} charged back"
    sentence += f", and the model held {some(held, 'payment')} for a fraud." if held else "."
    return [
        Fact("payments", sentence, "Payments", count, before=then or None),
        Fact("paid", label="Paid", value=round(dollars), unit="USD", before=round(dollars_then) or None),
    ]


def paid(config: Settings, day: date) -> tuple[int, float]:
    """How many payments were made on the local day, and of how much (USD)."""
    found = of_day(config, _PAYMENTS, day).select(pl.len(), pl.col("amount").sum()).collect()
    return found.row(0)
