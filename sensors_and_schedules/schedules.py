"""The schedules: table maintenance, contract checks, retention, archiving, and the nightly training."""

import dagster as dg

from city.contracts.registry import contracts
from city_assets.checks import contract_checks
from city_assets.features import online_checks
from city_assets.hot_tier import hot_checks
from city_assets.maintenance import lake_archive, lake_maintenance, run_retention
from sensors_and_schedules.retrain import retrain_nightly
from sensors_and_schedules.turns import TAKES_TURNS

maintain_lake = dg.ScheduleDefinition(
    name="maintain_lake",
    target=dg.AssetSelection.assets(lake_maintenance),
    cron_schedule="7,37 * * * *",
    tags=TAKES_TURNS,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Compacts the lake's tables. The stream commits some 14,000 small files an hour.",
)

# The checks of tables that other processes write. The checks of derived tables and of quality run with their assets.
_CHECKS = [
    key
    for check in (
        *(c for contract in contracts() for c in (*contract_checks(contract), *hot_checks(contract))),
        *online_checks(),
    )
    for key in check.check_keys
]

check_contracts = dg.ScheduleDefinition(
    name="check_contracts",
    job=dg.define_asset_job(
        "check_contracts_job",
        dg.AssetSelection.checks(*_CHECKS),
        executor_def=dg.in_process_executor,
        tags=TAKES_TURNS,
    ),
    cron_schedule="3,18,33,48 * * * *",  # between two ticks of builds, for which it would have to wait
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Checks the rows in bronze, in QuestDB and in the online store, whichever process wrote them.",
)

forget_old_runs = dg.ScheduleDefinition(
    name="forget_old_runs",
    job=run_retention,
    cron_schedule="23 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

archive_lake = dg.ScheduleDefinition(
    name="archive_lake",
    target=dg.AssetSelection.assets(lake_archive),
    cron_schedule="41 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Moves old bronze rows to cold storage.",
)

SCHEDULES = [maintain_lake, archive_lake, check_contracts, forget_old_runs, retrain_nightly]
