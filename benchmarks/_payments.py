"""Simulated payments with their features and their chargebacks."""

from datetime import UTC, datetime, timedelta

import polars as pl

from city.engines.polars import PolarsEngine
from city.tables.schema import schema
from city_assets.payments.contract import PAYMENTS
from city_assets.payments.models import FRAUDS
from city_assets.payments.transforms import payment_features
from simulators.payments import City

START = datetime(2026, 5, 4, 4, tzinfo=UTC)
HOURS = 4


def lived(seed: int, hours: float = HOURS) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Hours of payments of 150 cards as the feature view has them, and the chargebacks."""
    city, paid, reports = City(150, seed), [], []
    for second in range(0, int(hours * 3600), 2):
        for topic, _, payload in city.live(START + timedelta(seconds=second), 2):
            if topic == PAYMENTS.topic:
                paid.append({**payload, **payload["location"]})
            else:
                reports.append(payload)
    time = pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC")
    rows = pl.DataFrame(paid).drop("location").with_columns(time).unique(["card", "timestamp"], keep="first")
    engine = PolarsEngine()
    rows = rows.with_columns(day=pl.col("timestamp").dt.date())
    found = engine.collect(payment_features(engine.local(rows)))
    view = schema(FRAUDS.view.table).keys()
    return found.select(view).sort("timestamp"), pl.DataFrame(reports).with_columns(time)
