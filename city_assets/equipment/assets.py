"""Anomaly events: what the stream's scores come to, for people to look at."""

from datetime import timedelta

import dagster as dg
import polars as pl

from city.lake.reference import update
from city.models.anomaly import SCORE, SHARES
from city.models.predictions import ANOMALY
from city_assets import keys
from city_assets.automation import when_changed
from city_assets.equipment.models import ANOMALIES, ANOMALY_INPUTS
from city_assets.equipment.tables import ANOMALY_EVENTS, MACHINE_FEATURES
from city_assets.models import scores_key
from resources.lake import LakeResource

GAP = timedelta(minutes=2)
"""Anomalies of a machine that are further apart are two events."""
LEAST_READINGS = 5
_RECENT = timedelta(days=2)


def episodes(scores: pl.DataFrame) -> pl.DataFrame:
    """Stretches of anomalies (`machine_id`, `begin`, `end`, `readings`, `peak_score`, `signal`), from scores
    (`machine_id`, `timestamp`, `prediction`, `output`)."""
    wrong = scores.filter(pl.col("prediction") == ANOMALY).sort("machine_id", "timestamp")
    since = pl.col("timestamp").diff().over("machine_id")
    numbers = pl.col("output").list
    named = wrong.with_columns(
        _event=((since > GAP).fill_null(value=True)).cum_sum(),
        _score=numbers.get(SCORE),
        _signal=numbers.slice(SHARES)
        .list.arg_max()
        .replace_strict(dict(enumerate(name.split("_")[0] for name in ANOMALY_INPUTS)), return_dtype=pl.String),
    )
    found = named.group_by("machine_id", "_event").agg(
        pl.col("timestamp").min().alias("begin"),
        pl.col("timestamp").max().alias("end"),
        pl.len().cast(pl.Int64).alias("readings"),
        pl.col("_score").max().alias("peak_score"),
        pl.col("_signal").mode().sort().first().alias("signal"),
    )
    return found.filter(pl.col("readings") >= LEAST_READINGS).drop("_event").sort("machine_id", "begin")


def with_episodes(events: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """Anomaly events with new episodes: one that has gone on is lengthened, and what people wrote stays."""
    key = ["machine_id", "begin"]
    measured = ["end", "readings", "peak_score", "signal"]
    renewed = events.join(found.select(*key, pl.col(measured).name.suffix("_new")), on=key, how="left")
    renewed = renewed.with_columns(pl.coalesce(f"{name}_new", name).alias(name) for name in measured)
    fresh = found.join(events, on=key, how="anti")
    return pl.concat([renewed.select(events.columns), fresh], how="diagonal").sort("begin", "machine_id")


@dg.asset(
    key=keys.table(ANOMALY_EVENTS.id),
    deps=[scores_key(ANOMALIES), keys.table(MACHINE_FEATURES.id)],
    group_name="equipment",
    kinds={"deltalake", "reference"},
    description=ANOMALY_EVENTS.means + " Edit it with `city reference`; what is confirmed is learned from.",
    automation_condition=when_changed(),
    metadata={"dagster/column_schema": keys.table_columns(ANOMALY_EVENTS)},
)
def anomaly_events(lake: LakeResource) -> dg.MaterializeResult:
    scores = lake.snapshot.newest(f"scores/{ANOMALIES.name}", "timestamp", _RECENT)
    if scores is None:
        return dg.MaterializeResult(metadata={"scored": "nothing yet"})
    found = episodes(scores.select("machine_id", "timestamp", "prediction", "output").collect())
    count = update(lake.root, ANOMALY_EVENTS, lambda events: with_episodes(events, found), "scores of the stream")
    return dg.MaterializeResult(metadata={"dagster/row_count": count, "of_the_last_days": found.height})
