"""Simulated payments with their features and their chargebacks."""

from datetime import UTC, datetime, timedelta

import polars as pl

from city.lake.engines.polars import PolarsEngine
from city.tables.schema import schema
from city_assets.payments.contract import PAYMENTS
from city_assets.payments.models import FRAUDS
from city_assets.payments.transforms import payment_features
from simulators.payments import SECONDS_BETWEEN, City

START = datetime(2026, 5, 4, 4, tzinfo=UTC)
HOURS, CARDS = 4, 150
_STEP = 2
"""Seconds."""


def lived(seed: int, hours: float = HOURS, cards: int = CARDS, share: float = 1.0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Hours of payments as the feature view has them, with the `pattern` of a fraud, and the chargebacks. `share` is of
    a bad day's frauds."""
    city, paid, reports = City(cards, seed, faults=share), [], []
    for second in range(0, int(hours * 3600), _STEP):
        for topic, pattern, payload in city.live(
            START + timedelta(seconds=second), round(_STEP * cards / SECONDS_BETWEEN)
        ):
            if topic == PAYMENTS.topic:
                paid.append({**payload, **payload["location"], "pattern": pattern})
            else:
                reports.append(payload)
    time = pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC")
    rows = pl.DataFrame(paid, schema_overrides={"pattern": pl.String}).drop("location").with_columns(time)
    rows = rows.unique(["card", "timestamp"], keep="first")
    engine = PolarsEngine()
    rows = rows.with_columns(day=pl.col("timestamp").dt.date())
    found = engine.collect(payment_features(engine.local(rows)))
    view = schema(FRAUDS.view.table).keys()
    return found.select(*view, "pattern").sort("timestamp"), pl.DataFrame(reports).with_columns(time)
