"""Keeps the lake's tables and Dagster's own records small."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from deltalake import DeltaTable

from city.contracts.registry import contracts
from city.lake.cold import archive
from city.lake.retry import committed
from city.settings import settings
from resources.lake import LakeResource


@dg.asset(group_name="maintenance", kinds={"deltalake"}, description="Compacts and vacuums every table of the lake.")
def lake_maintenance(lake: LakeResource) -> dg.MaterializeResult:
    hours = settings().vacuum_hours
    done = {name: maintain(table, hours) for name, table in lake.tables().items()}
    totals = {
        what: sum(report[what] for report in done.values()) for what in ("files_before", "files_after", "vacuumed")
    }
    return dg.MaterializeResult(metadata=totals | {"tables": dg.MetadataValue.json(done)})


def maintain(table: DeltaTable, vacuum_hours: int) -> dict[str, Any]:
    """Compacts, then deletes the files that have been replaced, or that nothing committed, for `vacuum_hours`.
    Appends go on meanwhile."""
    before = len(table.file_uris())
    committed(table.table_uri, lambda newest: newest.optimize.compact())  # appends, and other compactions, go on
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
    config = settings()
    keep = timedelta(days=config.warm_days)
    done = {c.name: archive(c, lake.root, config.cold_path, keep) for c in contracts()}
    counts = {name: {"rows": a.rows, "deleted": a.deleted, "before": str(a.before)} for name, a in done.items()}
    return dg.MaterializeResult(
        metadata={"rows": sum(a.rows for a in done.values()), "tables": dg.MetadataValue.json(counts)}
    )


_BATCH = 500
_RETENTION_SECONDS = 600.0  # what is left then is deleted the next time


@dg.op(description="Deletes ended runs, and their events, older than CITY_RUN_RETENTION_DAYS.")
def delete_old_runs(context: dg.OpExecutionContext) -> int:
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
        # Dagster does so for the sensors that its daemon evaluates, and not for ours.
        context.instance.schedule_storage.purge_asset_evaluations(before=before.timestamp())
    context.log.info("deleted %d runs created before %s", deleted, before)
    return deleted


@dg.job(executor_def=dg.in_process_executor, description="Dagster's event log grows without bound: this bounds it.")
def run_retention() -> None:
    delete_old_runs()
