"""The table of comparisons of feature views with their references: its schema, and the newest of each view."""

from datetime import timedelta

import polars as pl

from city.drift.monitor import COMPARISON
from city.lake.snapshot import Snapshot

TABLE = "monitoring/drift"
SCHEMA: dict[str, pl.DataType] = {"view": pl.String(), "at": pl.Datetime("us", "UTC"), **COMPARISON}
_CURRENT = timedelta(days=1)
"""A comparison that is older than the newest by more is of a view that is not compared any more."""


def newest_comparisons(snapshot: Snapshot) -> pl.DataFrame:
    """The rows of each view's newest comparison, as `SCHEMA` has them. Only files with rows of the last day are
    opened: the table grows by a comparison an hour and view for as long as the city runs."""
    latest = snapshot.latest(TABLE, "at")
    if latest is None:
        return pl.DataFrame(schema=SCHEMA)
    recent = snapshot.since(TABLE, "at", latest - _CURRENT, SCHEMA)
    return recent.filter(pl.col("at") == pl.col("at").max().over("view")).collect()
