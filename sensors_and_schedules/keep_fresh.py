"""Builds the tables whose sources have changed, by the automation conditions that they all share."""

import dagster as dg

keep_fresh = dg.AutomationConditionSensorDefinition(
    "keep_fresh",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Requests the days of the tables whose sources have changed.",
)
