"""Measures, judges and records a local day of a contract's stream. It does without Dagster, for the history."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
from deltalake import write_deltalake

from city import local_time
from city.contracts.model import Contract
from city.contracts.registry import domain_with
from city.contracts.schema import QUARANTINE
from city.lake.location import cold_location
from city.lake.retry import commit_with_retry
from city.lake.snapshot import Snapshot
from city.lake.tables import open_table, scan
from city.quality import expectations, suites
from city.quality.announced import load_announced_keys
from city.quality.bands import unusual
from city.quality.expectations import ExpectationResult
from city.quality.measures import DIMENSIONS, Summary, measures, scores, summarise
from city.settings import Settings, settings
from city.tables import calendar

SCORES, HOURS = "monitoring/quality", "monitoring/hours"
"""The tables of the daily scores, and of the hourly volumes and means."""
_SAMPLE = 20_000  # rows of a day that the row-level expectations read
_ALL = "all"
BANDS = ("volume_usual", "values_usual")
"""The names of the results of `judge_bands`."""
SCORES_SCHEMA = {
    "dataset": pl.String(),
    "day": pl.Date(),
    **{name: pl.Int64() for name in ("rows", "quarantined", "keys")},
    **{name: pl.Float64() for names in DIMENSIONS.values() for name in names},
    **{name: pl.Float64() for name in (*DIMENSIONS, "score")},
}
_HOURS_SCHEMA = {
    "dataset": pl.String(),
    "day": pl.Date(),
    "local_hour": pl.Int64(),
    "weekday": pl.Int64(),
    "kind": pl.String(),
    "rows": pl.Int64(),
    "mean": pl.Float64(),
}


def assess(
    contract: Contract, lake: Path, day: date, docs: Path | None, now: datetime | None = None
) -> tuple[pl.DataFrame, list[ExpectationResult]]:
    """Measures, judges and records a local day of a contract's stream.

    With `docs`, Great Expectations judges the day and writes its Data Docs to that folder. Returns the day's scores
    (one row), and the result of each expectation.
    """
    bronze, rejected = scan_day(contract, lake, day)
    day_scores, by_hour = _measure(contract, day, bronze, rejected, _announced(contract, lake))
    rows = sample(bronze, day_scores["rows"][0])
    judged = suites.judge(contract, rows, day_scores, docs) if docs else expectations.judge(contract, rows, day_scores)
    row_results = [result for result in judged if result.blocking]
    failed = {result.name: result.detail for result in row_results if not result.passed}
    summary = ExpectationResult("rows_valid", not failed, True, {"expectations": len(row_results), "failed": failed})
    bands = judge_bands(contract, lake, by_hour, now or datetime.now(UTC))
    record(lake / SCORES, SCORES_SCHEMA, day_scores, contract, [day])
    record(lake / HOURS, _HOURS_SCHEMA, by_hour, contract, [day])
    return day_scores, [*(result for result in judged if not result.blocking), summary, *bands]


def record_past_days(contract: Contract, lake: Path, days: Sequence[date], config: Settings | None = None) -> None:
    """Measures and records past days of a contract's stream, without judging them. Days without rows have no record.

    The days are those of the time zone of `config`, by default of the settings.

    That is for the history of a new city: its days give the bands of later days, and nobody is alarmed about them.
    """
    announced = _announced(contract, lake, config)
    measured = [_measure(contract, day, *scan_day(contract, lake, day, config), announced, config) for day in days]
    scored, by_hour = (pl.concat(frames) for frames in zip(*measured, strict=True))
    record(lake / SCORES, SCORES_SCHEMA, scored.filter(pl.col("rows") > 0), contract, days)
    record(lake / HOURS, _HOURS_SCHEMA, by_hour, contract, days)


def _measure(
    contract: Contract,
    day: date,
    bronze: pl.LazyFrame,
    rejected: pl.LazyFrame,
    announced: dict[str, pl.Series],
    config: Settings | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Returns the scores of a day (one row), and its hours."""
    summary = summarise(contract, bronze, announced, has_sampled_history=domain_with(contract).has_sampled_history)
    day_scores = scores(measures(contract, summary, rejected))
    dated = day_scores.with_columns(dataset=pl.lit(contract.name), day=pl.lit(day))
    typed = dated.select(pl.col(name).cast(kind) for name, kind in SCORES_SCHEMA.items())
    return typed, hours(contract, summary, day, config)


def scan_day(
    contract: Contract, lake: Path, day: date, config: Settings | None = None
) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """Returns the bronze rows with event times on the local day, and the rejected messages that arrived on it."""
    config = config or settings()
    begin, end = local_time.bounds(day, config.timezone)
    snapshot = Snapshot(lake, cold_location(config))  # the day is read many times, one hour at a time
    arrived = pl.col("arrived")
    rejected = snapshot.scan(f"quarantine/{contract.name}", QUARANTINE)
    return snapshot.events(contract, begin, end), rejected.filter(arrived >= begin, arrived < end)


def sample(bronze: pl.LazyFrame, rows: int) -> pl.DataFrame:
    """Returns about _SAMPLE of a day's `rows` bronze rows at most, chosen by their offset.

    Rows with the same offset are duplicates. They are either all in the sample or all left out.
    """
    share = -(-rows // _SAMPLE) or 1
    return bronze.filter(pl.col("_offset").hash(0) % share == 0).collect(engine="streaming")


def _announced(contract: Contract, lake: Path, config: Settings | None = None) -> dict[str, pl.Series]:
    return load_announced_keys(contract, lake, config or settings(), "flag", "quarantine")


def hours(contract: Contract, summary: Summary, day: date, config: Settings | None = None) -> pl.DataFrame:
    """Returns the row count of each local hour of a day, and the hourly mean of each kind of measured quantity."""
    config = config or settings()
    slots = calendar.calendar([day], config.timezone, config.country).select("slot", "local_hour", "weekday")
    hour, rows = ["local_hour", "weekday"], pl.col("readings").sum()
    counts = summary.volume.join(slots, on="slot").group_by(hour).agg(pl.col("rows").sum())
    parts = [counts.with_columns(kind=pl.lit(_ALL), mean=pl.lit(None, dtype=pl.Float64))]
    if summary.kinds.height:
        by_kind = summary.kinds.join(slots, on="slot").group_by("kind", *hour)
        parts.append(by_kind.agg(rows=rows, mean=pl.col("total").sum() / rows))
    return pl.concat(parts, how="diagonal_relaxed").select(
        pl.lit(contract.name).alias("dataset"),
        pl.lit(day).alias("day"),
        *(pl.col(name).cast(kind) for name, kind in _HOURS_SCHEMA.items() if name not in ("dataset", "day")),
    )


def judge_bands(contract: Contract, lake: Path, by_hour: pl.DataFrame, now: datetime) -> list[ExpectationResult]:
    """Judges whether the day's ended hours have a usual volume and usual means.

    Compares each hour with the recorded hours of other days. Returns one result for the volume and one for the means.
    """
    history = read_table(lake / HOURS, _HOURS_SCHEMA).filter(pl.col("dataset") == contract.name)
    history = history.join(by_hour.select("day").unique(), on="day", how="anti")
    local = now.astimezone(local_time.zone(settings().timezone))
    ended = by_hour.filter((pl.col("day") < local.date()) | (pl.col("local_hour") < local.hour))
    volume = unusual(_select_rows(ended, True), _select_rows(history, True), "rows", ["kind"])
    choices = contract.quantities.choices if contract.quantities else ()
    free = [quantity.name for quantity in choices if not quantity.follows_the_clock]
    judged = _select_rows(ended, False).filter(~pl.col("kind").is_in(free))
    means = unusual(judged, _select_rows(history, False), "mean", ["kind"])
    return [
        ExpectationResult(
            name, outliers.is_empty(), False, {"unusual": outliers.head(10).to_dicts()} if outliers.height else {}
        )
        for name, outliers in zip(BANDS, (volume, means), strict=True)
    ]


def latest_scores(lake: Path) -> dict[str, float | None]:
    """Returns the newest score of each dataset, as the metric `quality.<dataset>`."""
    newest = read_table(lake / SCORES, SCORES_SCHEMA).sort("day").unique("dataset", keep="last")
    return {f"quality.{name}": score for name, score in newest.select("dataset", "score").iter_rows()}


def record(
    path: Path, schema: dict[str, pl.DataType], rows: pl.DataFrame, contract: Contract, days: Sequence[date]
) -> None:
    """Replaces a dataset's rows of some days in the table at `path`."""
    open_table(path, schema, ["dataset"])
    replaced = " OR ".join(f"day = '{day}'" for day in days)
    predicate = f"dataset = '{contract.name}' AND ({replaced})"
    commit_with_retry(path, lambda table: write_deltalake(table, rows, mode="overwrite", predicate=predicate))


def read_table(path: Path, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """Reads the whole table at `path`. Returns an empty frame of `schema` if there is no table."""
    return scan(path, schema).collect()


def _select_rows(rows: pl.DataFrame, volume: bool) -> pl.DataFrame:
    return rows.filter((pl.col("kind") == _ALL) == volume)
