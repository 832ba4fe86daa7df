"""The daily data quality of each stream: measured, judged, scored, and stored as a trend.

Polars judges each day. Great Expectations judges yesterday, because that day has ended, and writes its Data Docs.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from deltalake import DeltaTable, write_deltalake
from pydantic import JsonValue

from city import local_time
from city.contracts.model import Contract
from city.contracts.registry import contracts
from city.contracts.schema import QUARANTINE
from city.lake.snapshot import Snapshot
from city.lake.tables import open_table, scan
from city.quality import expectations, suites
from city.quality.bands import unusual
from city.quality.expectations import LIMITS, ExpectationResult
from city.quality.measures import DIMENSIONS, Summary, measures, scores, summarise
from city.settings import settings
from city.tables import calendar
from city_assets import keys
from city_assets.automation import HOURLY, when_changed
from city_assets.preview import Metadata, bars, markdown
from resources.lake import LakeResource

SCORES, HOURS = "monitoring/quality", "monitoring/hours"
"""The tables of the daily scores, and of the hourly volumes and means."""
_TREND_DAYS = 60
_SAMPLE = 20_000  # rows of a day that the row-level expectations read
_ALL = "all"
# A failure of these checks makes derived data wrong, so it is an error. A failure of another check is a warning.
_GRAVE = ("malformed", "duplicate", "unknown")
_BANDS = ("volume_usual", "values_usual")
_SCORES_SCHEMA = {
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


def quality_key(contract: Contract) -> dg.AssetKey:
    """Returns the key of the quality asset of a contract."""
    return dg.AssetKey(["monitoring", f"{contract.name}_quality"])


def quality_asset(contract: Contract) -> dg.AssetsDefinition:
    """Returns the asset of the daily quality of a contract's stream.

    Its checks are the expectations that follow from the contract.
    """
    names = [*(measure.removesuffix("_share") for measure in LIMITS), "not_empty", "rows_valid", *_BANDS]
    specs = [dg.AssetCheckSpec(name, asset=quality_key(contract)) for name in names]

    @dg.asset(
        key=quality_key(contract),
        deps=[keys.bronze(contract), keys.quarantine(contract)],
        group_name="monitoring",
        kinds={"greatexpectations"},
        description=f"The daily quality of {contract.name}: {', '.join(DIMENSIONS)}, and one score of all.",
        partitions_def=keys.live_days(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=when_changed(HOURLY),
        check_specs=specs,
    )
    def quality(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        docs = settings().home / "quality" / contract.name
        days = [date.fromisoformat(key) for key in context.partition_keys]
        yesterday = local_time.local_day(datetime.now(UTC), settings().timezone) - timedelta(days=1)
        assessed = {day: assess(contract, lake.root, day, docs if day == yesterday else None) for day in days}
        measured, _ = assessed[max(days)]
        yield dg.MaterializeResult(metadata=describe(contract, lake.root, measured, docs))
        for name in names:
            by_day = {
                day: [result for result in judged if result.name == name] for day, (_, judged) in assessed.items()
            }
            yield _check_result(contract, name, by_day)

    return quality


def quality_assets() -> list[dg.AssetsDefinition]:
    """Returns the quality asset of each high-rate contract."""
    return [quality_asset(contract) for contract in contracts() if contract.rate == "high"]


def assess(
    contract: Contract, lake: Path, day: date, docs: Path | None, now: datetime | None = None
) -> tuple[pl.DataFrame, list[ExpectationResult]]:
    """Measures, judges and records a local day of a contract's stream.

    With `docs`, Great Expectations judges the day and writes its Data Docs to that folder. Returns the day's scores
    (one row), and the result of each expectation.
    """
    bronze, rejected = scan_day(contract, lake, day)
    day_summary = summarise(contract, bronze, load_announced_keys(contract, lake))
    day_scores = scores(measures(contract, day_summary, rejected))
    rows = sample(bronze, day_scores["rows"][0])
    judged = suites.judge(contract, rows, day_scores, docs) if docs else expectations.judge(contract, rows, day_scores)
    row_results = [result for result in judged if result.blocking]
    failed = {result.name: result.detail for result in row_results if not result.passed}
    summary = ExpectationResult("rows_valid", not failed, True, {"expectations": len(row_results), "failed": failed})
    dated = day_scores.with_columns(dataset=pl.lit(contract.name), day=pl.lit(day)).select(
        pl.col(name).cast(kind) for name, kind in _SCORES_SCHEMA.items()
    )
    by_hour = hours(contract, day_summary, day)
    bands = judge_bands(contract, lake, by_hour, now or datetime.now(UTC))
    record(lake / SCORES, _SCORES_SCHEMA, dated, contract, day)
    record(lake / HOURS, _HOURS_SCHEMA, by_hour, contract, day)
    return dated, [*(result for result in judged if not result.blocking), summary, *bands]


def scan_day(contract: Contract, lake: Path, day: date) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """Returns the bronze rows with event times on the local day, and the rejected messages that arrived on it."""
    begin, end = local_time.bounds(day, settings().timezone)
    snapshot = Snapshot(lake, settings().cold_path)  # the day is read many times, one hour at a time
    arrived = pl.col("arrived")
    rejected = snapshot.scan(f"quarantine/{contract.name}", QUARANTINE)
    return snapshot.events(contract, begin, end), rejected.filter(arrived >= begin, arrived < end)


def sample(bronze: pl.LazyFrame, rows: int) -> pl.DataFrame:
    """Returns about _SAMPLE of a day's `rows` bronze rows at most, chosen by their offset.

    Rows with the same offset are duplicates. They are either all in the sample or all left out.
    """
    share = -(-rows // _SAMPLE) or 1
    return bronze.filter(pl.col("_offset").hash(0) % share == 0).collect(engine="streaming")


def load_announced_keys(contract: Contract, lake: Path) -> dict[str, pl.Series]:
    """Loads the keys that referenced contracts have announced, by the field that refers to them.

    A field is left out if its referenced contract has no bronze table yet.
    """
    declared = {c.name: c for c in contracts()}
    keys_by_field = {}
    for reference in contract.references:
        path = lake / "bronze" / reference.to
        if DeltaTable.is_deltatable(str(path)):
            key = declared[reference.to].key
            keys_by_field[reference.field] = pl.scan_delta(str(path)).select(pl.col(key).unique()).collect()[key]
    return keys_by_field


def hours(contract: Contract, summary: Summary, day: date) -> pl.DataFrame:
    """Returns the row count of each local hour of a day, and the hourly mean of each kind of measured quantity."""
    config = settings()
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
    means = unusual(_select_rows(ended, False), _select_rows(history, False), "mean", ["kind"])
    return [
        ExpectationResult(
            name, outliers.is_empty(), False, {"unusual": outliers.head(10).to_dicts()} if outliers.height else {}
        )
        for name, outliers in zip(_BANDS, (volume, means), strict=True)
    ]


def describe(contract: Contract, lake: Path, day_scores: pl.DataFrame, docs: Path) -> Metadata:
    """Returns the metadata of a day's quality for the UI: its scores, the trend, and a link to the Data Docs."""
    trend = read_table(lake / SCORES, _SCORES_SCHEMA).filter(pl.col("dataset") == contract.name).sort("day")
    by_day = {str(day): score for day, score in trend.tail(_TREND_DAYS).select("day", "score").iter_rows()}
    row = day_scores.row(0, named=True)
    index = docs / "index.html"
    return {
        "score": row["score"],
        "dagster/partition_row_count": row["rows"],
        "dimensions": dg.MetadataValue.md(markdown(day_scores.select(*DIMENSIONS, "score"))),
        "trend": dg.MetadataValue.md(bars(by_day)),
        **({"data_docs": dg.MetadataValue.url(index.as_uri())} if index.exists() else {}),
    }


def latest_scores(lake: Path) -> dict[str, float | None]:
    """Returns the newest score of each dataset, as the metric `quality.<dataset>`."""
    newest = read_table(lake / SCORES, _SCORES_SCHEMA).sort("day").unique("dataset", keep="last")
    return {f"quality.{name}": score for name, score in newest.select("dataset", "score").iter_rows()}


def record(path: Path, schema: dict[str, pl.DataType], rows: pl.DataFrame, contract: Contract, day: date) -> None:
    """Replaces a dataset's rows of a day in the table at `path`."""
    table = open_table(path, schema, ["dataset"])
    write_deltalake(table, rows, mode="overwrite", predicate=f"dataset = '{contract.name}' AND day = '{day}'")


def read_table(path: Path, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """Reads the whole table at `path`. Returns an empty frame of `schema` if there is no table."""
    return scan(path, schema).collect()


def _select_rows(rows: pl.DataFrame, volume: bool) -> pl.DataFrame:
    return rows.filter((pl.col("kind") == _ALL) == volume)


def _check_result(contract: Contract, name: str, by_day: dict[date, list[ExpectationResult]]) -> dg.AssetCheckResult:
    """Builds a check's result, which passes if the check passed on each day. Shows the failed days, else the newest."""
    failed = {day: judged for day, judged in by_day.items() if not all(result.passed for result in judged)}
    shown = failed or {max(by_day): by_day[max(by_day)]}
    is_grave = name in _GRAVE or any(result.blocking for judged in by_day.values() for result in judged)
    return dg.AssetCheckResult(
        asset_key=quality_key(contract),
        check_name=name,
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR if is_grave else dg.AssetCheckSeverity.WARN,
        metadata={
            "days": ", ".join(map(str, sorted(shown))),
            "detail": dg.MetadataValue.json(
                [_to_plain(result.detail) for judged in shown.values() for result in judged]
            ),
        },
    )


def _to_plain(value: object) -> JsonValue:
    if isinstance(value, dict):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
