"""The quality of each stream, a day at a time: measured, judged, scored, and kept as a trend.

Each day is judged in Polars; yesterday, once it has ended, by Great Expectations, which makes documents of it.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from deltalake import DeltaTable, write_deltalake

from city import local_time
from city.contracts.model import Contract
from city.contracts.registry import contracts
from city.contracts.schema import QUARANTINE
from city.lake.snapshot import Snapshot
from city.lake.tables import open_table, scan
from city.quality import expectations, suites
from city.quality.bands import unusual
from city.quality.expectations import LIMITS, Judged
from city.quality.measures import DIMENSIONS, Summary, measures, scores, summarise
from city.settings import settings
from city.tables import calendar
from city_assets import keys
from city_assets.automation import HOURLY, when_changed
from city_assets.preview import bars, markdown
from resources.lake import LakeResource

SCORES, HOURS = "monitoring/quality", "monitoring/hours"
_TREND_DAYS = 60
_SAMPLE = 20_000  # rows of a day that the row by row expectations look at
_ALL = "all"
# Of these, what follows from the data is wrong; the others are for people to look at.
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
    return dg.AssetKey(["monitoring", f"{contract.name}_quality"])


def quality_asset(contract: Contract) -> dg.AssetsDefinition:
    """A day's quality of a contract's stream. Its checks are the expectations that follow from the contract."""
    names = [*(measure.removesuffix("_share") for measure in LIMITS), "not_empty", "rows_valid", *_BANDS]
    specs = [dg.AssetCheckSpec(name, asset=quality_key(contract)) for name in names]

    @dg.asset(
        key=quality_key(contract),
        deps=[keys.bronze(contract), keys.quarantine(contract)],
        group_name="monitoring",
        kinds={"greatexpectations"},
        description=f"How good {contract.name} is, a day at a time: {', '.join(DIMENSIONS)}, and one score of all.",
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
            of_days = {day: [one for one in judged if one.name == name] for day, (_, judged) in assessed.items()}
            yield _result(contract, name, of_days)

    return quality


def quality_assets() -> list[dg.AssetsDefinition]:
    return [quality_asset(contract) for contract in contracts() if contract.rate == "high"]


def assess(
    contract: Contract, lake: Path, day: date, docs: Path | None, now: datetime | None = None
) -> tuple[pl.DataFrame, list[Judged]]:
    """Measures, judges and records a day; with `docs`, by Great Expectations, which writes Data Docs there. Returns
    its scores, and what each expectation came to."""
    bronze, rejected = of_day(contract, lake, day)
    whole = summarise(contract, bronze, known_keys(contract, lake))
    found = scores(measures(contract, whole, rejected))
    rows = sample(bronze, found["rows"][0])
    judged = suites.judge(contract, rows, found, docs) if docs else expectations.judge(contract, rows, found)
    of_rows = [one for one in judged if one.blocking]
    failed = {one.name: one.detail for one in of_rows if not one.passed}
    summary = Judged("rows_valid", not failed, True, {"expectations": len(of_rows), "failed": failed})
    dated = found.with_columns(dataset=pl.lit(contract.name), day=pl.lit(day)).select(
        pl.col(name).cast(kind) for name, kind in _SCORES_SCHEMA.items()
    )
    by_hour = hours(contract, whole, day)
    bands = judge_bands(contract, lake, by_hour, now or datetime.now(UTC))
    record(lake / SCORES, _SCORES_SCHEMA, dated, contract, day)
    record(lake / HOURS, _HOURS_SCHEMA, by_hour, contract, day)
    return dated, [*(one for one in judged if not one.blocking), summary, *bands]


def of_day(contract: Contract, lake: Path, day: date) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """The bronze rows whose event time is on the local day, and what was rejected of what arrived on it."""
    begin, end = local_time.bounds(day, settings().timezone)
    snapshot = Snapshot(lake, settings().cold_path)  # a day is read many times, an hour at a time
    arrived = pl.col("arrived")
    rejected = snapshot.scan(f"quarantine/{contract.name}", QUARANTINE)
    return snapshot.events(contract, begin, end), rejected.filter(arrived >= begin, arrived < end)


def sample(bronze: pl.LazyFrame, rows: int) -> pl.DataFrame:
    """At most some _SAMPLE of a day's `rows` bronze rows, chosen by their offset: rows of the same offset, which are a
    fault, are taken or left together."""
    share = -(-rows // _SAMPLE) or 1
    return bronze.filter(pl.col("_offset").hash(0) % share == 0).collect(engine="streaming")


def known_keys(contract: Contract, lake: Path) -> dict[str, pl.Series]:
    """By field that refers to another contract, the keys which that has announced; none where nothing was."""
    declared = {c.name: c for c in contracts()}
    found = {}
    for reference in contract.references:
        path = lake / "bronze" / reference.to
        if DeltaTable.is_deltatable(str(path)):
            key = declared[reference.to].key
            found[reference.field] = pl.scan_delta(str(path)).select(pl.col(key).unique()).collect()[key]
    return found


def hours(contract: Contract, summary: Summary, day: date) -> pl.DataFrame:
    """How many rows each local hour has, and of measured quantities each kind's mean."""
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


def judge_bands(contract: Contract, lake: Path, by_hour: pl.DataFrame, now: datetime) -> list[Judged]:
    """Whether the day's whole hours have the volume and the means that such hours usually have."""
    history = read_table(lake / HOURS, _HOURS_SCHEMA).filter(pl.col("dataset") == contract.name)
    history = history.join(by_hour.select("day").unique(), on="day", how="anti")
    local = now.astimezone(local_time.zone(settings().timezone))
    ended = by_hour.filter((pl.col("day") < local.date()) | (pl.col("local_hour") < local.hour))
    volume = unusual(_of(ended, True), _of(history, True), "rows", ["kind"])
    means = unusual(_of(ended, False), _of(history, False), "mean", ["kind"])
    return [
        Judged(name, found.is_empty(), False, {"unusual": found.head(10).to_dicts()} if found.height else {})
        for name, found in zip(_BANDS, (volume, means), strict=True)
    ]


def describe(contract: Contract, lake: Path, found: pl.DataFrame, docs: Path) -> dict[str, Any]:
    trend = read_table(lake / SCORES, _SCORES_SCHEMA).filter(pl.col("dataset") == contract.name).sort("day")
    by_day = {str(day): score for day, score in trend.tail(_TREND_DAYS).select("day", "score").iter_rows()}
    row = found.row(0, named=True)
    written = docs / "index.html"
    return {
        "score": row["score"],
        "dagster/partition_row_count": row["rows"],
        "dimensions": dg.MetadataValue.md(markdown(found.select(*DIMENSIONS, "score"))),
        "trend": dg.MetadataValue.md(bars(by_day)),
        **({"data_docs": dg.MetadataValue.url(written.as_uri())} if written.exists() else {}),
    }


def latest_scores(lake: Path) -> dict[str, float | None]:
    """The newest score of each dataset, as the metric `quality.<dataset>`."""
    newest = read_table(lake / SCORES, _SCORES_SCHEMA).sort("day").unique("dataset", keep="last")
    return {f"quality.{name}": score for name, score in newest.select("dataset", "score").iter_rows()}


def record(path: Path, schema: dict[str, pl.DataType], rows: pl.DataFrame, contract: Contract, day: date) -> None:
    """Puts a dataset's rows of a day in place of those that are there."""
    table = open_table(path, schema, ["dataset"])
    write_deltalake(table, rows, mode="overwrite", predicate=f"dataset = '{contract.name}' AND day = '{day}'")


def read_table(path: Path, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    return scan(path, schema).collect()


def _of(rows: pl.DataFrame, volume: bool) -> pl.DataFrame:
    return rows.filter((pl.col("kind") == _ALL) == volume)


def _result(contract: Contract, name: str, of_days: dict[date, list[Judged]]) -> dg.AssetCheckResult:
    """Passes where it passed on each of the days. Shows those on which it failed, else the newest."""
    failed = {day: judged for day, judged in of_days.items() if not all(one.passed for one in judged)}
    shown = failed or {max(of_days): of_days[max(of_days)]}
    grave = name in _GRAVE or any(one.blocking for judged in of_days.values() for one in judged)
    return dg.AssetCheckResult(
        asset_key=quality_key(contract),
        check_name=name,
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR if grave else dg.AssetCheckSeverity.WARN,
        metadata={
            "days": ", ".join(map(str, sorted(shown))),
            "detail": dg.MetadataValue.json(_plain([one.detail for judged in shown.values() for one in judged])),
        },
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
