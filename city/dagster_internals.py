"""Re-exports, in one place, every name of Dagster's private interface that City uses.

City imports public names from `dagster` itself. The private names may change in any release: TESTED is the range of
versions that was tested, and `tests/city/test_dagster_internals.py` fails when a name is removed or gets other
arguments. A name is imported at its first use, because every process of Dagster loads modules that import this one.

| used for | because the public interface has no |
| --- | --- |
| conditions on the days that changed (`city_assets/automation.py`) | condition limited to given partitions |
| the sensor `keep_fresh` | way to evaluate conditions with a run for several assets, and a cursor of its own |
| `WatchedRunLauncher` | default launcher that tells whether a run's process lives |
| `FileComputeLogManager` | compute logs without four more processes per run |
| deletion of old events (`city_assets/maintenance.py`) | deletion of events without a run |
| alarms of checks, runs and freshness | status of the execution of a check; state of freshness |
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names, for type checkers; `as` re-exports them from this module
    from dagster._config import UserConfigSchema as UserConfigSchema
    from dagster._core.asset_graph_view.entity_subset import EntitySubset as EntitySubset
    from dagster._core.asset_graph_view.serializable_entity_subset import (
        SerializableEntitySubset as SerializableEntitySubset,
    )
    from dagster._core.definitions.asset_key import EntityKey as EntityKey
    from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph as BaseAssetGraph
    from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetNode as BaseAssetNode
    from dagster._core.definitions.automation_tick_evaluation_context import (
        AutomationTickEvaluationContext as AutomationTickEvaluationContext,
    )
    from dagster._core.definitions.declarative_automation.automation_condition import (
        BuiltinAutomationCondition as BuiltinAutomationCondition,
    )
    from dagster._core.definitions.declarative_automation.operands.subset_automation_condition import (
        SubsetAutomationCondition as SubsetAutomationCondition,
    )
    from dagster._core.definitions.declarative_automation.operators.dep_operators import (
        AnyDepsCondition as AnyDepsCondition,
    )
    from dagster._core.definitions.freshness import FreshnessState as FreshnessState
    from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy as TimeWindowFreshnessPolicy
    from dagster._core.definitions.sensor_definition import wrap_sensor_evaluation as wrap_sensor_evaluation
    from dagster._core.errors import DagsterUserCodeUnreachableError as DagsterUserCodeUnreachableError
    from dagster._core.execution.compute_logs import redirect_to_file as redirect_to_file
    from dagster._core.execution.stats import StepEventStatus as StepEventStatus
    from dagster._core.instance.utils import RUNLESS_RUN_ID as RUNLESS_RUN_ID
    from dagster._core.launcher.base import CheckRunHealthResult as CheckRunHealthResult
    from dagster._core.launcher.base import WorkerStatus as WorkerStatus
    from dagster._core.storage.asset_check_execution_record import (
        AssetCheckExecutionRecord as AssetCheckExecutionRecord,
    )
    from dagster._core.storage.asset_check_execution_record import (
        AssetCheckExecutionRecordStatus as AssetCheckExecutionRecordStatus,
    )
    from dagster._core.storage.compute_log_manager import CapturedLogContext as CapturedLogContext
    from dagster._core.storage.compute_log_manager import ComputeIOType as ComputeIOType
    from dagster._core.storage.dagster_run import FINISHED_STATUSES as FINISHED_STATUSES
    from dagster._core.storage.event_log.schema import AssetEventTagsTable as AssetEventTagsTable
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as SqlEventLogStorageTable
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage as SqlEventLogStorage
    from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION as IO_TYPE_EXTENSION
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager as LocalComputeLogManager
    from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG as ASSET_PARTITION_RANGE_END_TAG
    from dagster._core.storage.tags import ASSET_PARTITION_RANGE_START_TAG as ASSET_PARTITION_RANGE_START_TAG
    from dagster._daemon.asset_daemon import (
        asset_daemon_cursor_from_instigator_serialized_cursor as asset_daemon_cursor_from_instigator_serialized_cursor,
    )
    from dagster._daemon.asset_daemon import (
        asset_daemon_cursor_to_instigator_serialized_cursor as asset_daemon_cursor_to_instigator_serialized_cursor,
    )
    from dagster._grpc.types import CanCancelExecutionRequest as CanCancelExecutionRequest
    from dagster._grpc.types import CanCancelExecutionResult as CanCancelExecutionResult
    from dagster._record import record as record
    from dagster._serdes import ConfigurableClassData as ConfigurableClassData
    from dagster._serdes import deserialize_value as deserialize_value
    from dagster._utils import ensure_file as ensure_file
    from dagster._utils import touch_file as touch_file
    from dagster._utils.schedules import get_latest_completed_cron_tick as get_latest_completed_cron_tick

TESTED = ">=1.13,<1.14"

_AUTOMATION = "dagster._core.definitions.declarative_automation"
_MODULES = {
    "dagster._config": ("UserConfigSchema",),
    "dagster._core.asset_graph_view.entity_subset": ("EntitySubset",),
    "dagster._core.asset_graph_view.serializable_entity_subset": ("SerializableEntitySubset",),
    "dagster._core.definitions.asset_key": ("EntityKey",),
    "dagster._core.definitions.assets.graph.base_asset_graph": ("BaseAssetGraph", "BaseAssetNode"),
    "dagster._core.definitions.automation_tick_evaluation_context": ("AutomationTickEvaluationContext",),
    f"{_AUTOMATION}.automation_condition": ("BuiltinAutomationCondition",),
    f"{_AUTOMATION}.operands.subset_automation_condition": ("SubsetAutomationCondition",),
    f"{_AUTOMATION}.operators.dep_operators": ("AnyDepsCondition",),
    "dagster._core.definitions.freshness": ("FreshnessState", "TimeWindowFreshnessPolicy"),
    "dagster._core.definitions.sensor_definition": ("wrap_sensor_evaluation",),
    "dagster._core.errors": ("DagsterUserCodeUnreachableError",),
    "dagster._core.execution.compute_logs": ("redirect_to_file",),
    "dagster._core.execution.stats": ("StepEventStatus",),
    "dagster._core.instance.utils": ("RUNLESS_RUN_ID",),
    "dagster._core.launcher.base": ("CheckRunHealthResult", "WorkerStatus"),
    "dagster._core.storage.asset_check_execution_record": (
        "AssetCheckExecutionRecord",
        "AssetCheckExecutionRecordStatus",
    ),
    "dagster._core.storage.compute_log_manager": ("CapturedLogContext", "ComputeIOType"),
    "dagster._core.storage.dagster_run": ("FINISHED_STATUSES",),
    "dagster._core.storage.event_log.schema": ("AssetEventTagsTable", "SqlEventLogStorageTable"),
    "dagster._core.storage.event_log.sql_event_log": ("SqlEventLogStorage",),
    "dagster._core.storage.local_compute_log_manager": ("IO_TYPE_EXTENSION", "LocalComputeLogManager"),
    "dagster._core.storage.tags": ("ASSET_PARTITION_RANGE_END_TAG", "ASSET_PARTITION_RANGE_START_TAG"),
    "dagster._daemon.asset_daemon": (
        "asset_daemon_cursor_from_instigator_serialized_cursor",
        "asset_daemon_cursor_to_instigator_serialized_cursor",
    ),
    "dagster._grpc.types": ("CanCancelExecutionRequest", "CanCancelExecutionResult"),
    "dagster._record": ("record",),
    "dagster._serdes": ("ConfigurableClassData", "deserialize_value"),
    "dagster._utils": ("ensure_file", "touch_file"),
    "dagster._utils.schedules": ("get_latest_completed_cron_tick",),
}
MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
"""The private module of each name."""


def __getattr__(name: str) -> Any:
    if name not in MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(MODULE_OF[name]), name)
