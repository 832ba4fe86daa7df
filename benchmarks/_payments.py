"""Simulated payments with their features and their chargebacks."""

from datetime import UTC, datetime

import polars as pl

from city.contracts.schema import TIMESTAMP
from city.lake.engines.polars import PolarsEngine
from city.tables.schema import schema
from city_assets.payments.models import FRAUDS
from city_assets.payments.transforms import payment_features
from simulators.payments import frame
from simulators.world.payers import PATTERNS, City

START = datetime(2026, 5, 4, 10, tzinfo=UTC)
HOURS, CARDS = 8, 3_000
SECONDS_BETWEEN = 5_000.0
"""The mean time between two payments of a card, as the simulated city has it by default."""


def lived(seed: int, hours: float = HOURS, cards: int = CARDS, share: float = 1.0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Hours of payments as the feature view has them, with the `pattern` of a fraud, and the chargebacks. `share` is of
    a bad day's frauds."""
    city = City(seed, faults=share, rate=cards / SECONDS_BETWEEN, cards=cards)
    begin = START.timestamp()
    end = begin + hours * 3_600
    events = city.events(begin, end)
    rows = frame(city, events).with_columns(
        pattern=pl.Series([None if n < 0 else PATTERNS[n] for n in events.pattern], dtype=pl.String)
    )
    at, about = city.chargebacks(begin, end)
    reports = frame(city, about).select("payment_id", "card", timestamp=pl.Series(at))
    rows = rows.with_columns(_timestamp(rows["timestamp"])).unique(["card", "timestamp"], keep="first")
    engine = PolarsEngine()
    rows = rows.with_columns(day=pl.col("timestamp").dt.date())
    examples = engine.collect(payment_features(engine.local(rows)))
    view = schema(FRAUDS.view.table).keys()
    return examples.select(*view, "pattern").sort("timestamp"), reports.with_columns(_timestamp(reports["timestamp"]))


def _timestamp(seconds: pl.Series) -> pl.Series:
    return (seconds * 1e6).cast(pl.Int64).cast(TIMESTAMP).alias("timestamp")
