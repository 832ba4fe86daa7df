"""Maintenance assets and jobs that keep the lake's tables and Dagster's own records small."""

import time
from datetime import UTC, date, datetime, timedelta

import dagster as dg
from deltalake import DeltaTable, WriterProperties

from city.contracts.registry import contracts
from city.lake.cold import archive
from city.lake.location import cold_location
from city.lake.retry import commit_with_retry
from city.settings import settings
from city.stack.history_plan import load_plan
from city_assets.automation import HISTORY_TAG
from resources.lake import LakeResource

_ROW_GROUP = 250_000


@dg.asset(group_name="maintenance", kinds={"deltalake"}, description="Compacts and vacuums every table of the lake.")
def lake_maintenance(lake: LakeResource) -> dg.MaterializeResult:
    """Compacts and vacuums every table of the lake, with the retention CITY_VACUUM_HOURS."""
    hours = settings().vacuum_hours
    reports = {name: maintain(table, hours) for name, table in lake.tables().items()}
    totals = {
        name: sum(report[name] for report in reports.values()) for name in ("files_before", "files_after", "vacuumed")
    }
    return dg.MaterializeResult(metadata=totals | {"tables": dg.MetadataValue.json(reports)})


def maintain(table: DeltaTable, vacuum_hours: int) -> dict[str, int]:
    """Compacts and vacuums a table. Appends go on meanwhile.

    Deletes the files that were replaced more than `vacuum_hours` ago, and older files that were never committed.
    Returns the number of files before and after, and the number of deleted files.
    """
    before = len(table.file_uris())
    # Retried, because appends and other compactions go on. The defaults, groups of a million rows and a task for each
    # core, need twice the memory.
    properties = WriterProperties(compression="ZSTD", compression_level=4, max_row_group_size=_ROW_GROUP)
    commit_with_retry(
        table.table_uri,
        lambda newest: newest.optimize.compact(max_concurrent_tasks=1, writer_properties=properties),
    )
    table.update_incremental()
    deleted = table.vacuum(retention_hours=vacuum_hours, dry_run=False, enforce_retention_duration=False, full=True)
    table.create_checkpoint()
    table.cleanup_metadata()
    return {"files_before": before, "files_after": len(table.file_uris()), "vacuumed": len(deleted)}


@dg.asset(
    group_name="maintenance",
    kinds={"deltalake"},
    description="Moves bronze older than CITY_WARM_DAYS to cold storage (CITY_COLD), sorted and compressed, by year.",
)
def lake_archive(lake: LakeResource) -> dg.MaterializeResult:
    """Moves the bronze rows that are older than CITY_WARM_DAYS to cold storage."""
    config = settings()
    keep = timedelta(days=config.warm_days)
    archives = {c.name: archive(c, lake.root, cold_location(config), keep) for c in contracts()}
    counts = {name: {"rows": a.rows, "deleted": a.deleted, "before": str(a.before)} for name, a in archives.items()}
    return dg.MaterializeResult(
        metadata={"rows": sum(a.rows for a in archives.values()), "tables": dg.MetadataValue.json(counts)}
    )


_BATCH = 500
_RETENTION_SECONDS = 600.0  # the next run deletes the rest


def delete_runless_events(instance: dg.DagsterInstance, before: datetime, began: date | None = None) -> int:
    """Deletes the events that sensors have reported without a run before that time. Returns how many it deleted.

    Dagster deletes events only together with their run. The stream's days alone are 20,000 events a day. The reports of
    the history of a new city stay: they are made once, and a table of a later release is built for their days. Those of
    the day on which the city `began` are deleted, because runs have built that day, too, and runs are deleted.
    """
    import sqlalchemy as sa

    from city.dagster_internals import RUNLESS_RUN_ID, AssetEventTagsTable, SqlEventLogStorage, SqlEventLogStorageTable

    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    log, tags = SqlEventLogStorageTable, AssetEventTagsTable
    # Dagster's table of tags has only Dagster's own tags of an event.
    is_kept = log.c.event.contains(f'"{HISTORY_TAG}"', autoescape=True) & log.c.partition.is_distinct_from(str(began))
    is_old = sa.and_(log.c.run_id == RUNLESS_RUN_ID, log.c.timestamp < before.replace(tzinfo=None), ~is_kept)
    # SQLite stores an event in the index and in a file for the events of its run.
    with storage.index_connection() as connection:
        old = sa.select(log.c.id).where(is_old)
        connection.execute(tags.delete().where(tags.c.event_id.in_(old)))
        deleted = int(connection.execute(log.delete().where(is_old)).rowcount)
    with storage.run_connection(RUNLESS_RUN_ID) as connection:
        connection.execute(log.delete().where(is_old))
    return deleted


@dg.op(description="Deletes ended runs, and their events, older than CITY_RUN_RETENTION_DAYS.")
def delete_old_runs(context: dg.OpExecutionContext) -> int:
    """Deletes the ended runs that are older than CITY_RUN_RETENTION_DAYS. Returns how many it deleted."""
    before = datetime.now(UTC) - timedelta(days=settings().run_retention_days)
    ended = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED],
        created_before=before,
    )
    # What others are made from goes first: bronze has no run, and a table's run is older than those that read it. A day
    # that is missing while its upstreams have it would be built again.
    plan = load_plan(settings())
    began = plan.local_days[-1] if plan and plan.days else None
    events = delete_runless_events(context.instance, before, began)
    ends, deleted = time.monotonic() + _RETENTION_SECONDS, 0
    while time.monotonic() < ends and (
        records := context.instance.get_run_records(ended, limit=_BATCH, ascending=True)
    ):
        for record in records:
            context.instance.delete_run(record.dagster_run.run_id)
        deleted += len(records)
    if context.instance.schedule_storage is not None:
        # Dagster purges these only for the sensors that its daemon evaluates, not for keep_fresh.
        context.instance.schedule_storage.purge_asset_evaluations(before=before.timestamp())
    context.log.info("deleted %d runs created before %s, and %d events without a run", deleted, before, events)
    return deleted


@dg.job(
    executor_def=dg.in_process_executor,
    description="Deletes old runs and their events. Without it, Dagster's event log grows without bound.",
)
def run_retention() -> None:
    """Runs `delete_old_runs`."""
    delete_old_runs()
