"""The table of comparisons of feature views with their references: its schema, and each view's newest comparison."""

from datetime import timedelta

import polars as pl

from city.drift.monitor import COMPARISON
from city.lake.snapshot import Snapshot

TABLE = "monitoring/drift"
SCHEMA: dict[str, pl.DataType] = {"view": pl.String(), "at": pl.Datetime("us", "UTC"), **COMPARISON}
_CURRENT = timedelta(days=1)
"""A comparison that is older than the newest one by more belongs to a view that is not compared any more."""


def newest_comparisons(snapshot: Snapshot) -> pl.DataFrame:
    """Reads the rows of each view's newest comparison, with the columns of `SCHEMA`.

    Only files with rows of the last day are opened, because the table grows by one comparison per hour and view for as
    long as the city runs.
    """
    latest = snapshot.latest(TABLE, "at")
    if latest is None:
        return pl.DataFrame(schema=SCHEMA)
    recent = snapshot.since(TABLE, "at", latest - _CURRENT, SCHEMA)
    return recent.filter(pl.col("at") == pl.col("at").max().over("view")).collect()
