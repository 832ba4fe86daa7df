"""The asset checks of the hot tier: QuestDB has the rows of bronze, applies what it is sent, and deletes old rows.

The stream writes the tables, and a QuestDB that was replaced, restored or altered by hand says nothing of it.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl
import requests

from city.contracts import questdb as tables
from city.contracts.model import Contract
from city.questdb import QuestDBError
from city_assets import keys
from city_assets.monitoring.checks import UNKNOWN
from city_assets.preview import Metadata
from resources.lake import LakeResource
from resources.questdb import QuestDBResource

RECENT = timedelta(minutes=30)
"""The rows of events within this time are compared."""
LAG = timedelta(minutes=2)
"""Rows that arrived in Kafka before this time must be in QuestDB."""
_HOT = {"minute": pl.Int64(), "rows": pl.Int64(), "settled": pl.Int64()}
_WAL = {"name": pl.String(), "suspended": pl.Boolean()}
_TTL = {"name": pl.String(), "value": pl.Int64(), "unit": pl.String()}
_HOURS = {"HOUR": 1, "DAY": 24, "WEEK": 168}
"""The hours of QuestDB's units. A month and a year have no fixed number of hours, and no contract declares one."""

Verdict = tuple[bool, Metadata]
Judge = Callable[[Contract, LakeResource, QuestDBResource], Verdict]


def hot_checks(contract: Contract) -> list[dg.AssetChecksDefinition]:
    """Returns the checks of a contract's QuestDB tables; none for a low-rate topic, which has no tables there.

    A suspended table is an error, because its rows are accepted and cannot be read. The others are warnings.
    """
    if contract.rate == "low":
        return []
    specs: dict[str, tuple[Judge, dg.AssetCheckSeverity, str]] = {
        "as_in_bronze": (check_rows, dg.AssetCheckSeverity.WARN, "QuestDB has the rows that bronze has."),
        "applied": (check_applied, dg.AssetCheckSeverity.ERROR, "No table's write-ahead log is suspended."),
        "ttl": (check_ttl, dg.AssetCheckSeverity.WARN, f"Rows are kept for {tables.ttl_hours(contract)} hours."),
    }
    return [_build_check(contract, name, *spec) for name, spec in specs.items()]


def _build_check(
    contract: Contract, name: str, judge: Judge, severity: dg.AssetCheckSeverity, description: str
) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=keys.questdb(contract.name), name=name, description=description)
    def check(lake: LakeResource, questdb: QuestDBResource) -> dg.AssetCheckResult:
        try:
            passed, metadata = judge(contract, lake, questdb)
        except QuestDBError as error:
            return dg.AssetCheckResult(passed=False, severity=severity, description=str(error))
        except requests.RequestException as error:
            # That the server is unavailable is an alarm of its own. It tells nothing about the tables.
            reason = f"QuestDB at {questdb.address} is unavailable: {type(error).__name__}"
            return dg.AssetCheckResult(passed=True, severity=severity, metadata={UNKNOWN: reason})
        return dg.AssetCheckResult(passed=passed, severity=severity, metadata=metadata)

    return check


def check_rows(contract: Contract, lake: LakeResource, questdb: QuestDBResource) -> Verdict:
    """Compares the rows of recent events in bronze and in QuestDB, minute by minute."""
    if not lake.exists(contract):
        return True, {UNKNOWN: "bronze has no table yet"}
    now = datetime.now(UTC)
    begin = (now - RECENT).replace(second=0, microsecond=0)
    recent = (
        lake.scan(contract)
        .filter(pl.col("_arrived") >= begin - contract.max_ahead, pl.col(contract.event_time) >= begin)
        .select(contract.event_time, contract.key, "_partition", "_offset", "_arrived")
        .collect()
    )
    bronze, ends = settled_rows(recent, now - LAG)
    if bronze.is_empty():
        return True, {"rows": 0}
    hot = questdb.frame(rows_by_minute(contract, begin, ends), _HOT)
    different = compare_rows(distinct_by_minute(contract, bronze), hot)
    return different.is_empty(), {
        "rows": bronze.select(contract.event_time, contract.key).n_unique(),
        "different": dg.MetadataValue.json(different.with_columns(pl.col("minute").cast(pl.String)).to_dicts()[:20]),
    }


def settled_rows(bronze: pl.DataFrame, before: datetime) -> tuple[pl.DataFrame, dict[int, int]]:
    """Returns the rows up to the last that arrived before a time, in each partition, and the offset of that last row.

    Rows are not in order of `_arrived`, which may be the producer's time. QuestDB gets them in order of their offsets.
    """
    ends = bronze.filter(pl.col("_arrived") < before).group_by("_partition").agg(pl.col("_offset").max().alias("end"))
    rows = bronze.join(ends, on="_partition").filter(pl.col("_offset") <= pl.col("end"))
    return rows, dict(ends.iter_rows())


def rows_by_minute(contract: Contract, begin: datetime, ends: dict[int, int]) -> str:
    """Returns the query for the rows of each minute from `begin` on, and for those up to the offsets `ends`.

    `ends` is the last offset by partition. A minute is in microseconds since the epoch.
    """
    settled = " OR ".join(f"(part = {partition} AND off <= {offset})" for partition, offset in sorted(ends.items()))
    return (
        f"SELECT minute_us, count() row_count, sum(CASE WHEN {settled} THEN 1 ELSE 0 END) settled_count FROM "
        f"(SELECT cast(timestamp_floor('1m', {contract.event_time}) AS LONG) minute_us, part, off "
        f"FROM {contract.name} WHERE {contract.event_time} >= '{begin:%Y-%m-%dT%H:%M:%S.%fZ}')"
    )


def distinct_by_minute(contract: Contract, bronze: pl.DataFrame) -> pl.DataFrame:
    """Counts the rows that QuestDB has of bronze's rows: one for each event time and key, by minute."""
    minute = pl.col(contract.event_time).dt.truncate("1m").dt.epoch("us").alias("minute")
    distinct = bronze.select(contract.event_time, contract.key).unique()
    return distinct.group_by(minute).agg(pl.len().cast(pl.Int64).alias("rows"))


def compare_rows(bronze: pl.DataFrame, hot: pl.DataFrame) -> pl.DataFrame:
    """Returns the minutes in which QuestDB lacks rows of bronze, or has rows that bronze has not.

    `bronze` counts the rows that QuestDB must have by now. Of `hot`, `settled` counts the rows with offsets of these,
    and `rows` counts all. A newer copy of an event replaces its row, which then has the newer offset and is no longer
    settled. So bronze's number is between the two.
    """
    both = bronze.rename({"rows": "bronze"}).join(hot, on="minute", how="full", coalesce=True).fill_null(0)
    counts = both.select(
        pl.from_epoch("minute", "us").dt.replace_time_zone("UTC"),
        missing=(pl.col("bronze") - pl.col("rows")).clip(0),
        unexpected=(pl.col("settled") - pl.col("bronze")).clip(0),
    )
    return counts.filter((pl.col("missing") > 0) | (pl.col("unexpected") > 0)).sort("minute")


def check_applied(contract: Contract, lake: LakeResource, questdb: QuestDBResource) -> Verdict:
    """Checks that QuestDB applies what it is sent to the contract's tables."""
    wal = questdb.frame("SELECT name, suspended FROM wal_tables()", _WAL)
    suspended = suspended_tables(wal, tables.table_names(contract))
    return not suspended, {"suspended": ", ".join(suspended)}


def suspended_tables(wal: pl.DataFrame, names: Iterable[str]) -> list[str]:
    """Returns those of the tables whose write-ahead log is suspended; `wal` has `name` and `suspended`."""
    return sorted(wal.filter(pl.col("suspended"), pl.col("name").is_in(list(names)))["name"])


def check_ttl(contract: Contract, lake: LakeResource, questdb: QuestDBResource) -> Verdict:
    """Checks that each of the contract's tables exists and keeps its rows for as long as the contract declares."""
    ttl = questdb.frame("SELECT table_name, ttlValue, ttlUnit FROM tables()", _TTL)
    hours = tables.ttl_hours(contract)
    others = other_ttl(ttl, tables.table_names(contract), hours)
    return not others, {"hours": hours, "different": dg.MetadataValue.json(others)}


def other_ttl(ttl: pl.DataFrame, names: Iterable[str], hours: int) -> dict[str, str]:
    """Returns the tables that do not keep their rows for so many hours, with what they do instead.

    `ttl` has `name`, `value` and `unit`. A value of 0 keeps rows for ever.
    """
    kept = {name: (value or 0, unit or "") for name, value, unit in ttl.iter_rows()}
    others = {}
    for name in names:
        if name not in kept:
            others[name] = "there is no table"
            continue
        value, unit = kept[name]
        if value * _HOURS.get(unit, 0) != hours:
            others[name] = f"{value} {unit}" if value else "for ever"
    return others
