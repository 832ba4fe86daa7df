"""The asset of anomaly events: episodes in the stream's scores, which people review."""

from datetime import timedelta

import dagster as dg
import polars as pl

from city.lake.reference import update
from city.models.anomaly import SCORE, SHARES
from city.models.predictions import ANOMALY
from city_assets import keys
from city_assets.automation import when_changed
from city_assets.equipment.contract import FLEET
from city_assets.equipment.models import ANOMALIES
from city_assets.equipment.tables import ANOMALY_EVENTS, MACHINE_FEATURES
from city_assets.models import scores_key
from resources.lake import LakeResource

GAP = timedelta(minutes=2)
"""Anomalies of a machine that are further apart belong to two events."""
LEAST_READINGS = 5
"""An episode with fewer anomalous readings is no event."""
_RECENT = timedelta(days=2)


def episodes(scores: pl.DataFrame) -> pl.DataFrame:
    """Groups anomalous scores into episodes.

    `scores` has the columns `machine_id`, `timestamp`, `prediction` and `output`. Returns the columns `machine_id`,
    `begin`, `end`, `readings`, `peak_score` and `signal`.
    """
    anomalies = scores.filter(pl.col("prediction") == ANOMALY).sort("machine_id", "timestamp")
    since = pl.col("timestamp").diff().over("machine_id")
    numbers = pl.col("output").list
    numbered = anomalies.with_columns(
        _event=((since > GAP).fill_null(value=True)).cum_sum(),
        _score=numbers.get(SCORE),
        _signal=numbers.slice(SHARES)
        .list.arg_max()
        .replace_strict(dict(enumerate(map(FLEET.signal_of, ANOMALIES.inputs))), return_dtype=pl.String),
    )
    grouped = numbered.group_by("machine_id", "_event").agg(
        pl.col("timestamp").min().alias("begin"),
        pl.col("timestamp").max().alias("end"),
        pl.len().cast(pl.Int64).alias("readings"),
        pl.col("_score").max().alias("peak_score"),
        pl.col("_signal").mode().sort().first().alias("signal"),
    )
    return grouped.filter(pl.col("readings") >= LEAST_READINGS).drop("_event").sort("machine_id", "begin")


def with_episodes(events: pl.DataFrame, new_episodes: pl.DataFrame) -> pl.DataFrame:
    """Merges new episodes into anomaly events. Extends an event that went on, and keeps what people wrote."""
    key = ["machine_id", "begin"]
    measured = ["end", "readings", "peak_score", "signal"]
    renewed = events.join(new_episodes.select(*key, pl.col(measured).name.suffix("_new")), on=key, how="left")
    renewed = renewed.with_columns(pl.coalesce(f"{name}_new", name).alias(name) for name in measured)
    fresh = new_episodes.join(events, on=key, how="anti")
    return pl.concat([renewed.select(events.columns), fresh], how="diagonal").sort("begin", "machine_id")


@dg.asset(
    key=keys.table(ANOMALY_EVENTS.id),
    deps=[scores_key(ANOMALIES), keys.table(MACHINE_FEATURES.id)],
    group_name="equipment",
    kinds={"deltalake", "reference"},
    description=ANOMALY_EVENTS.description + " Edit it with `city reference`: models learn from confirmed events.",
    automation_condition=when_changed(),
    metadata={"dagster/column_schema": keys.table_columns(ANOMALY_EVENTS)},
)
def anomaly_events(lake: LakeResource) -> dg.MaterializeResult:
    """Adds the episodes of the last two days' scores to the reference table of anomaly events."""
    scores = lake.snapshot.newest(f"scores/{ANOMALIES.name}", "timestamp", _RECENT)
    if scores is None:
        return dg.MaterializeResult(metadata={"scored": "nothing yet"})
    new_episodes = episodes(scores.select("machine_id", "timestamp", "prediction", "output").collect())
    count = update(
        lake.root, ANOMALY_EVENTS, lambda events: with_episodes(events, new_episodes), "scores of the stream"
    )
    return dg.MaterializeResult(metadata={"dagster/row_count": count, "of_the_last_days": new_episodes.height})
