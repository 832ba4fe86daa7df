"""Silver, gold and feature tables as assets. Each declared table is an asset with partitions, lineage and freshness."""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

import dagster as dg

from city.contracts.registry import Domain
from city.lake import ORDER
from city.lake.build_result import BuildResult
from city.lake.faults import count_faults
from city.lake.lakehouse import Lakehouse
from city.lake.preview import preview_table
from city.tables.calendar import REFERENCE_CALENDAR
from city.tables.cell_sources import REFERENCE_CENTRES
from city.tables.model import Source, Table
from city.tables.neighbours import REFERENCE_NEIGHBOURS
from city.tables.registry import is_learned, is_live, tables_of
from city_assets import keys
from city_assets.automation import LEARNED, TICK, when_changed
from city_assets.preview import Metadata, bars, markdown
from resources.lake import LakeResource

SOUND = "sound"
"""The name of the check that a table's rows are complete and unique."""
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=2), warn_window=timedelta(minutes=40))
FRESH_HOURLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=3), warn_window=timedelta(minutes=90))
"""The policy of tables that are built hourly."""
_PREVIEW_ROWS = 5
_PLOTTED_DAYS = 60


class BuildConfig(dg.Config):
    """The configuration of a build.

    `full` builds every hour of the day, and not only the hours with new events. A backfill always builds every hour.
    """

    full: bool = False


def table_assets(domain: Domain) -> list[dg.AssetsDefinition]:
    """Returns an asset for each table of a domain that has a transform."""
    return [_build_asset(domain, table) for table in tables_of(domain) if table.transform is not None]


def external_specs(domain: Domain) -> list[dg.AssetSpec]:
    """Returns the specs of the tables of a domain that no asset fills.

    These are loaded from outside (`city ingest`) or edited by people (`city reference`). A table that an asset in the
    domain's `assets.py` fills is left out.
    """
    module = domain.module("assets")
    filled = (
        {key for definition in dg.load_assets_from_modules([module]) for key in _asset_keys(definition)}
        if module
        else set()
    )
    return [
        dg.AssetSpec(
            keys.table(table.id),
            group_name=domain.name,
            kinds={"deltalake", table.layer},
            description=table.description,
            partitions_def=partitions(table),
            metadata={"dagster/column_schema": keys.table_columns(table)},
        )
        for table in tables_of(domain)
        if table.transform is None and keys.table(table.id) not in filled
    ]


def _asset_keys(definition: Any) -> Iterable[dg.AssetKey]:
    return definition.keys if isinstance(definition, dg.AssetsDefinition) else [definition.key]


def reference_specs() -> list[dg.AssetSpec]:
    """Returns the specs of the reference tables that are computed rather than stored."""
    descriptions = {
        REFERENCE_CALENDAR: "Local time, weekdays, public holidays and rush hours, of CITY_TIMEZONE and CITY_COUNTRY.",
        REFERENCE_NEIGHBOURS: "The H3 cells that share an edge with a cell.",
        REFERENCE_CENTRES: "Latitude and longitude of the centres of H3 cells.",
    }
    return [
        dg.AssetSpec(keys.table(name), group_name="reference", description=text) for name, text in descriptions.items()
    ]


def partitions(table: Table) -> dg.DailyPartitionsDefinition | None:
    """Returns the partitions of a table: the local days up to today, or None if the table is not daily.

    All tables that derive from a stream have the same partitions, so that one run can build them.
    """
    if not table.daily:
        return None
    return keys.live_days() if is_live(table) else keys.days(table.first_day)


def _build_asset(domain: Domain, table: Table) -> dg.AssetsDefinition:
    live = is_live(table)
    # What is learned from a day is used from the next day on.
    learned = live and is_learned(table)

    @dg.asset(
        key=keys.table(table.id),
        deps=[_build_dep(table, source) for source in table.sources.values()],
        group_name=domain.name,
        kinds={"deltalake", table.layer},
        description=table.description,
        partitions_def=partitions(table),
        backfill_policy=dg.BackfillPolicy.single_run() if table.daily else None,
        automation_condition=when_changed(LEARNED if learned else TICK) if live else None,
        freshness_policy=(FRESH_HOURLY if learned else FRESH) if live else None,
        check_specs=[
            dg.AssetCheckSpec(
                SOUND,
                asset=keys.table(table.id),
                blocking=True,  # a table that is built on duplicate or missing rows is wrong too
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
        faults = count_faults(house, table, days)
        sound = dg.AssetCheckResult(check_name=SOUND, passed=not faults, metadata=dict(faults))
        return dg.MaterializeResult(metadata=describe(house, table, built), check_results=[sound])

    return build


def _build_dep(table: Table, source: Source) -> dg.AssetDep:
    key = keys.table(source.table)
    if not source.days_before:
        return dg.AssetDep(key)
    mapping = dg.TimeWindowPartitionMapping(
        start_offset=-source.days_before, allow_nonexistent_upstream_partitions=True
    )
    return dg.AssetDep(key, partition_mapping=mapping)


def lineage(table: Table) -> dg.TableColumnLineage:
    """Returns, for each column of a table, the source columns that it comes from."""

    def dependencies(references: Iterable[str]) -> list[dg.TableColumnDep]:
        pairs = (origin.split(".", 1) for origin in references)
        return [dg.TableColumnDep(keys.table(table.sources[source].table), column) for source, column in pairs]

    return dg.TableColumnLineage(
        {column.name: dependencies(column.origins) for column in table.columns if column.origins}
    )


def describe(house: Lakehouse, table: Table, built: BuildResult) -> Metadata:
    """Returns the metadata of a build: its counts, the newest rows, and the row counts of the last days."""
    newest = preview_table(
        house.path(table.id), _PREVIEW_ROWS, [table.time] if table.time else ORDER.get(table.layer, ())
    )
    metadata: Metadata = {
        "dagster/row_count": newest.rows,
        "dagster/column_lineage": lineage(table),
        "dagster/partition_row_count": built.rows,
        "seconds": round(built.seconds, 3),
        "files": newest.files,
        "source_versions": dict(built.sources),
        "newest": dg.MetadataValue.md(markdown(newest.frame)) if newest.frame.height else "empty",
    }
    if built.hours is not None:
        metadata["hours_rebuilt"] = built.hours
    if table.daily:
        counts = sorted((day, rows) for day, rows in house.rows_by_day(table).items() if day is not None)
        metadata["rows_by_day"] = dg.MetadataValue.md(bars({str(d): rows for d, rows in counts[-_PLOTTED_DAYS:]}))
    return metadata
