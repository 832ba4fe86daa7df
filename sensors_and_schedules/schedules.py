"""What a clock decides: table maintenance, contract checks, retention."""

import dagster as dg

from city_assets.maintenance import lake_maintenance, run_retention

maintain_lake = dg.ScheduleDefinition(
    name="maintain_lake",
    target=dg.AssetSelection.assets(lake_maintenance),
    cron_schedule="7,37 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="The stream commits some 14,000 small files an hour; this makes few of them.",
)

check_contracts = dg.ScheduleDefinition(
    name="check_contracts",
    job=dg.define_asset_job(
        "check_contracts_job", dg.AssetSelection.all_asset_checks(), executor_def=dg.in_process_executor
    ),
    cron_schedule="*/15 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Looks at what is in bronze, whoever wrote it.",
)

forget_old_runs = dg.ScheduleDefinition(
    name="forget_old_runs",
    job=run_retention,
    cron_schedule="23 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

SCHEDULES = [maintain_lake, check_contracts, forget_old_runs]
