"""Silver, gold and feature tables as assets: each declaration becomes one, with partitions, lineage and freshness."""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

import dagster as dg

from city.contracts.registry import Domain
from city.lake import ORDER
from city.lake.lakehouse import REFERENCE_CALENDAR, REFERENCE_NEIGHBOURS, Built, Lakehouse
from city.lake.preview import latest
from city.tables.model import Source, Table
from city.tables.registry import tables, tables_of
from city_assets import keys
from city_assets.automation import when_changed
from city_assets.preview import bars, markdown
from resources.lake import LakeResource

SOUND = "sound"
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=2), warn_window=timedelta(minutes=40))
_PREVIEW_ROWS = 5
_PLOTTED_DAYS = 60


class BuildConfig(dg.Config):
    """`full` builds every hour of the day, and not only those with new events. Backfills always do."""

    full: bool = False


def table_assets(domain: Domain) -> list[dg.AssetsDefinition]:
    """An asset for each table with a transform."""
    return [_asset(domain, table) for table in tables_of(domain) if table.transform is not None]


def loaded_specs(domain: Domain) -> list[dg.AssetSpec]:
    """Tables that are loaded from outside (`city ingest`) or kept by people (`city reference`), but those that an asset
    of the domain's own fills."""
    module = domain.module("assets")
    own = {key for found in dg.load_assets_from_modules([module]) for key in _keys(found)} if module else set()
    return [
        dg.AssetSpec(
            keys.table(table.id),
            group_name=domain.name,
            kinds={"deltalake", table.layer},
            description=table.means,
            partitions_def=partitions(table),
            metadata={"dagster/column_schema": keys.table_columns(table)},
        )
        for table in tables_of(domain)
        if table.transform is None and keys.table(table.id) not in own
    ]


def _keys(found: Any) -> Iterable[dg.AssetKey]:
    return found.keys if isinstance(found, dg.AssetsDefinition) else [found.key]


def reference_specs() -> list[dg.AssetSpec]:
    """What is computed rather than stored."""
    means = {
        REFERENCE_CALENDAR: "Local time, weekdays, public holidays and rush hours, of CITY_TIMEZONE and CITY_COUNTRY.",
        REFERENCE_NEIGHBOURS: "The H3 cells that share an edge with a cell.",
    }
    return [dg.AssetSpec(keys.table(name), group_name="reference", description=text) for name, text in means.items()]


def partitions(table: Table) -> dg.DailyPartitionsDefinition | None:
    """Local days, today's included. All tables that follow a stream have the same, so that a run can build them."""
    if not table.daily:
        return None
    return keys.live_days() if is_live(table) else keys.days(table.first_day)


def is_live(table: Table) -> bool:
    """Whether it follows from a stream, however far: then it must be fresh."""
    known = tables()
    return any(
        is_live(known[source.table]) if source.table in known else source.table.startswith("bronze/")
        for source in table.sources.values()
    )


def _asset(domain: Domain, table: Table) -> dg.AssetsDefinition:
    live = is_live(table)

    @dg.asset(
        key=keys.table(table.id),
        deps=[_dep(table, source) for source in table.sources.values()],
        group_name=domain.name,
        kinds={"deltalake", table.layer},
        description=table.means,
        partitions_def=partitions(table),
        backfill_policy=dg.BackfillPolicy.single_run() if table.daily else None,
        automation_condition=when_changed() if live else None,
        freshness_policy=FRESH if live else None,
        check_specs=[
            dg.AssetCheckSpec(
                SOUND,
                asset=keys.table(table.id),
                blocking=True,  # what is built on twofold or missing rows is wrong itself
                description=f"One row for each {', '.join(table.key)}; no nulls where the table allows none.",
            )
        ],
        metadata={
            "dagster/column_schema": keys.table_columns(table),
            "key": ", ".join(table.key),
        },
    )
    def build(context: dg.AssetExecutionContext, config: BuildConfig, lake: LakeResource) -> dg.MaterializeResult:
        days = [date.fromisoformat(key) for key in context.partition_keys] if table.daily else []
        full = config.full or "dagster/backfill" in context.run.tags
        house = lake.house()
        built = house.build(table, days, full, context.log.info)
        faults = house.faults(table, days)
        sound = dg.AssetCheckResult(check_name=SOUND, passed=not faults, metadata=dict(faults))
        return dg.MaterializeResult(metadata=describe(house, table, built), check_results=[sound])

    return build


def _dep(table: Table, source: Source) -> dg.AssetDep:
    key = keys.table(source.table)
    if not source.days_before:
        return dg.AssetDep(key)
    mapping = dg.TimeWindowPartitionMapping(
        start_offset=-source.days_before, allow_nonexistent_upstream_partitions=True
    )
    return dg.AssetDep(key, partition_mapping=mapping)


def lineage(table: Table) -> dg.TableColumnLineage:
    """Of each column, the columns of the sources that it comes from."""

    def origins(of: Iterable[str]) -> list[dg.TableColumnDep]:
        pairs = (origin.split(".", 1) for origin in of)
        return [dg.TableColumnDep(keys.table(table.sources[source].table), column) for source, column in pairs]

    return dg.TableColumnLineage({column.name: origins(column.of) for column in table.columns if column.of})


def describe(house: Lakehouse, table: Table, built: Built) -> dict[str, Any]:
    """What a build did, the newest rows, and how many rows the last days have."""
    found = latest(house.path(table.id), _PREVIEW_ROWS, [table.time] if table.time else ORDER.get(table.layer, ()))
    metadata: dict[str, Any] = {
        "dagster/row_count": found.rows,
        "dagster/column_lineage": lineage(table),
        "dagster/partition_row_count": built.rows,
        "seconds": round(built.seconds, 3),
        "files": found.files,
        "source_versions": dict(built.sources),
        "newest": dg.MetadataValue.md(markdown(found.frame)) if found.frame.height else "empty",
    }
    if built.hours is not None:
        metadata["hours_rebuilt"] = built.hours
    if table.daily:
        counts = sorted((day, rows) for day, rows in house.rows_by_day(table).items() if day is not None)
        metadata["rows_by_day"] = dg.MetadataValue.md(bars({str(d): rows for d, rows in counts[-_PLOTTED_DAYS:]}))
    return metadata
