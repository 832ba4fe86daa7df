"""Maintenance assets and jobs that keep the lake's tables and Dagster's own records small."""

import time
from datetime import UTC, datetime, timedelta

import dagster as dg
from deltalake import DeltaTable

from city.contracts.registry import contracts
from city.lake.cold import archive
from city.lake.retry import commit_with_retry
from city.settings import settings
from resources.lake import LakeResource


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
    # Retried, because appends and other compactions go on.
    commit_with_retry(table.table_uri, lambda newest: newest.optimize.compact())
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
    archives = {c.name: archive(c, lake.root, config.cold_path, keep) for c in contracts()}
    counts = {name: {"rows": a.rows, "deleted": a.deleted, "before": str(a.before)} for name, a in archives.items()}
    return dg.MaterializeResult(
        metadata={"rows": sum(a.rows for a in archives.values()), "tables": dg.MetadataValue.json(counts)}
    )


_BATCH = 500
_RETENTION_SECONDS = 600.0  # the next run deletes the rest


@dg.op(description="Deletes ended runs, and their events, older than CITY_RUN_RETENTION_DAYS.")
def delete_old_runs(context: dg.OpExecutionContext) -> int:
    """Deletes the ended runs that are older than CITY_RUN_RETENTION_DAYS. Returns how many it deleted."""
    before = datetime.now(UTC) - timedelta(days=settings().run_retention_days)
    ended = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED],
        created_before=before,
    )
    ends, deleted = time.monotonic() + _RETENTION_SECONDS, 0
    while time.monotonic() < ends and (records := context.instance.get_run_records(ended, limit=_BATCH)):
        for record in records:
            context.instance.delete_run(record.dagster_run.run_id)
        deleted += len(records)
    if context.instance.schedule_storage is not None:
        # Dagster purges these only for the sensors that its daemon evaluates, not for keep_fresh.
        context.instance.schedule_storage.purge_asset_evaluations(before=before.timestamp())
    context.log.info("deleted %d runs created before %s", deleted, before)
    return deleted


@dg.job(
    executor_def=dg.in_process_executor,
    description="Deletes old runs and their events. Without it, Dagster's event log grows without bound.",
)
def run_retention() -> None:
    """Runs `delete_old_runs`."""
    delete_old_runs()
