"""The facts about a day's payments: their number, their amount, and the frauds among them."""

from datetime import date

import polars as pl

from city.lake.tables import scan
from city.live.facts import WEEK, Fact, count_text, of_day
from city.models.predictions import PREDICTION, scores_schema
from city.settings import Settings
from city.tables.model import DAY
from city_assets.payments.models import FRAUD, FRAUDS

_PAYMENTS, _CHARGEBACKS = "silver/payments", "silver/chargebacks"


def today(config: Settings, day: date) -> list[Fact]:
    """Returns the facts about a local day's payments, compared with the same day a week before."""
    (count, dollars), (previous_count, previous_dollars) = (
        payment_totals(config, local_day) for local_day in (day, day - WEEK)
    )
    if not count:
        return [Fact("payments", "There is no data about today's payments yet.")]
    reported = of_day(config, _CHARGEBACKS, day, "timestamp").select(pl.len()).collect().item()
    scores = scan(config.lake / "scores" / FRAUDS.name, scores_schema(FRAUDS) | {DAY: pl.Date()})
    frauds = scores.filter(pl.col(DAY) == day, pl.col(PREDICTION) == FRAUD).select(pl.len()).collect().item()
    sentence = f"{count_text(count, 'payment').capitalize()} of {dollars:,.0f} dollars in all were made; "
    sentence += f"{count_text(reported, 'payment')} {'were' if reported > 1 else 'was'} charged back"
    sentence += f", and the model flagged {count_text(frauds, 'payment')} as a fraud." if frauds else "."
    return [
        Fact("payments", sentence, "Payments", count, before=previous_count or None),
        Fact("paid", label="Paid", value=round(dollars), unit="USD", before=round(previous_dollars) or None),
    ]


def payment_totals(config: Settings, day: date) -> tuple[int, float]:
    """Returns the number of payments on the local day, and their total amount (USD)."""
    totals = of_day(config, _PAYMENTS, day).select(pl.len(), pl.col("amount").sum()).collect()
    return totals.row(0)
