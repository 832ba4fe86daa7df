"""The daily data quality of each stream: measured, judged, scored, and stored as a trend.

Polars judges each day. Great Expectations judges yesterday, because that day has ended, and writes its Data Docs.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from pydantic import JsonValue

from city import local_time
from city.contracts.model import Contract
from city.contracts.registry import contracts
from city.quality.expectations import LIMITS, ExpectationResult
from city.quality.measures import DIMENSIONS
from city.settings import settings
from city_assets import keys
from city_assets.automation import HOURLY, when_changed
from city_assets.monitoring.daily_quality import BANDS, SCORES, SCORES_SCHEMA, assess, read_table
from city_assets.preview import Metadata, bars, markdown
from resources.lake import LakeResource

_TREND_DAYS = 60
# A failure of these checks makes derived data wrong, so it is an error. A failure of another check is a warning.
_GRAVE = ("malformed", "duplicate", "unknown")


def quality_key(contract: Contract) -> dg.AssetKey:
    """Returns the key of the quality asset of a contract."""
    return dg.AssetKey(["monitoring", f"{contract.name}_quality"])


def quality_asset(contract: Contract) -> dg.AssetsDefinition:
    """Returns the asset of the daily quality of a contract's stream.

    Its checks are the expectations that follow from the contract.
    """
    names = [*(measure.removesuffix("_share") for measure in LIMITS), "not_empty", "rows_valid", *BANDS]
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


def describe(contract: Contract, lake: Path, day_scores: pl.DataFrame, docs: Path) -> Metadata:
    """Returns the metadata of a day's quality for the UI: its scores, the trend, and a link to the Data Docs."""
    trend = read_table(lake / SCORES, SCORES_SCHEMA).filter(pl.col("dataset") == contract.name).sort("day")
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
