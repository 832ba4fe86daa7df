"""Automation conditions: assets are built at cron ticks, and daily assets only for the days that have new rows.

The history of a new city builds its days outside Dagster and is reported afterwards, so its reports make nothing stale.
Every live table reports the local days of its new rows in its materializations. An upstream without partitions cannot
name days, so it never marks a day of a daily asset. Therefore a change of a snapshot, a model or a reference table
does not make all days stale.
"""

from collections.abc import Sequence, Set

import dagster as dg
from dagster import AutomationCondition, AutomationContext, AutomationResult, RunRecord

from city.dagster_internals import (
    AnyDepsCondition,
    BaseAssetGraph,
    BaseAssetNode,
    BuiltinAutomationCondition,
    EntityKey,
    EntitySubset,
    SerializableEntitySubset,
    SubsetAutomationCondition,
    record,
)
from city.settings import settings
from city.stack.history_plan import load_plan

HISTORY_TAG = "city/history"
"""The tag of a materialization that the history of a new city made, outside Dagster."""
TICK = "*/10 * * * *"
"""The cron schedule of the warm path.

Each tick of another schedule of `when_changed` is also a tick of this one, so that both share a run.
"""
HOURLY = "0 * * * *"
LEARNED = "50 * * * *"
"""The cron schedule of what is learned from a day, without its last hour. So the last tick of a day settles it: then no
late event changes the hours before."""
_RECORDS = 1000


def is_history(event: dg.EventLogRecord) -> bool:
    """Returns whether a materialization reports what the history of a new city made."""
    materialization = event.asset_materialization
    return materialization is not None and HISTORY_TAG in (materialization.tags or {})


def when_changed(cron: str = TICK, builds_history: bool = True) -> dg.AutomationCondition:
    """Returns the condition that requests, at each tick of `cron`, what has new upstream rows since its last request.

    A change counts from the request on, not from the end of the run. So rows that are committed while a run reads are
    built by the next run. An asset or a day that was never built is requested once when its upstream has rows. This is
    a new table, or a day before the first partition that the lake had when the definitions were loaded.

    Without `builds_history`, the past days that the history of a new city made are requested only after a change. That
    is for what cannot be made of the past, such as the predictions of a champion that was trained on these days.
    """
    condition = dg.AutomationCondition
    changed = _AnyDayDeps(operand=_UpdatedElsewhere() | _RequestedThisTick())
    missing = condition.missing() & _HasUpstreamRows()
    unbuilt = (missing if builds_history else missing & ~_InHistory()).newly_true()
    due = _SinceRequested(operand=changed | unbuilt)
    return (condition.cron_tick_passed(cron) & due & _HasUpstreamRows() & ~condition.in_progress()).with_label(
        f"changed, at ticks of {cron}"
    )


def day_deps(graph: BaseAssetGraph[BaseAssetNode], key: dg.AssetKey) -> set[dg.AssetKey]:
    """Returns the upstream assets whose changes `key` follows.

    For an unpartitioned asset these are all upstreams, for a daily asset the daily upstreams.
    """
    node = graph.get(key)
    parents = {parent for parent in node.parent_entity_keys if isinstance(parent, dg.AssetKey)}
    if node.partitions_def is None:
        return parents
    return {parent for parent in parents if isinstance(graph.get(parent).partitions_def, dg.DailyPartitionsDefinition)}


# None of these classes is registered for serialization: only the code server evaluates them, and it has them.
class _AnyDayDeps(AnyDepsCondition[dg.AssetKey]):
    """Is true as any_deps_match is, but only over the upstreams that `day_deps` returns."""

    def _get_dep_keys(self, key: dg.AssetKey, asset_graph: BaseAssetGraph[BaseAssetNode]) -> Set[dg.AssetKey]:
        return day_deps(asset_graph, key)


class _UpdatedElsewhere(SubsetAutomationCondition[dg.AssetKey]):
    """Is true for what was updated since the last evaluation, by a run that did not also build the root asset.

    What only the history of a new city updated is left out, because the history builds all that follows from it.

    Dagster's executed_with_root_target looks only at the asset's last materialization. After a run of many days, it
    would build all days but one again.
    """

    @property
    def name(self) -> str:
        return "updated_elsewhere"

    async def compute_subset(  # type: ignore[override]  # Dagster awaits it
        self, context: AutomationContext[dg.AssetKey]
    ) -> EntitySubset[dg.AssetKey]:
        view, key, previous = context.asset_graph_view, context.key, context.previous_temporal_context
        if previous is None:
            return context.get_empty_subset()
        updated = await view.compute_updated_since_temporal_context_subset(key=key, temporal_context=previous)
        if updated.is_empty:
            return updated
        run_ids: dict[str | None, str] = {}  # by day, the id of the last run
        history_days: set[str | None] = set()
        materializations = view.instance.fetch_materializations(
            dg.AssetRecordsFilter(key, after_storage_id=previous.last_event_id), limit=_RECORDS
        )
        for event in materializations.records:
            if is_history(event):
                history_days.add(event.partition_key)
            else:
                run_ids.setdefault(event.partition_key, event.run_id)
        ignored = history_days - run_ids.keys()
        if context.asset_graph.get(key).is_materializable:
            ignored |= {day for day, run_id in run_ids.items() if await self._run_builds_root(context, run_id)}
        if context.partitions_def is None:
            return context.get_empty_subset() if None in ignored else updated
        days = {day for day in ignored if day is not None} & updated.expensively_compute_partition_keys()
        return updated.compute_difference(updated.compute_intersection_with_partition_keys(days))

    async def _run_builds_root(self, context: AutomationContext[dg.AssetKey], run_id: str) -> bool:
        run = await RunRecord.gen(context.asset_graph_view, run_id)
        return run is not None and context.root_context.key in (run.dagster_run.asset_selection or ())


class _RequestedThisTick(SubsetAutomationCondition[dg.AssetKey]):
    """Is true for what is requested at this tick.

    Unlike will_be_requested, it holds across partitions definitions, because the sensor puts all that is due into one
    run.
    """

    @property
    def name(self) -> str:
        return "requested_this_tick"

    def compute_subset(self, context: AutomationContext[dg.AssetKey]) -> EntitySubset[dg.AssetKey]:
        requested = context.request_subsets_by_key.get(context.key)
        return context.get_empty_subset() if requested is None else requested


class _InHistory(SubsetAutomationCondition[dg.AssetKey]):
    """Is true for the local days before the one on which a city with a history began."""

    @property
    def name(self) -> str:
        return "in_history"

    def compute_subset(self, context: AutomationContext[dg.AssetKey]) -> EntitySubset[dg.AssetKey]:
        plan = load_plan(settings())
        if plan is None or context.partitions_def is None:
            return context.get_empty_subset()
        days = context.partitions_def.filter_valid_partition_keys({str(day) for day in plan.local_days[:-1]})
        return context.candidate_subset.compute_intersection_with_partition_keys(days)


@record
class _SinceRequested(BuiltinAutomationCondition[dg.AssetKey]):
    """Remembers the days for which `operand` was true since they were last requested.

    Unlike with since(), what is true now always counts: it is newer than the request of the previous evaluation, from
    which on the condition looks for changes. The remembered days survive a change of the first partition.
    """

    operand: AutomationCondition[dg.AssetKey]

    @property
    def name(self) -> str:
        return "since_requested"

    @property
    def children(self) -> Sequence[AutomationCondition[dg.AssetKey]]:
        return [self.operand]

    def get_node_unique_id(
        self, *, parent_unique_id: str | None, index: int | None, target_key: EntityKey | None
    ) -> str:
        return self._get_stable_unique_id(target_key)

    async def evaluate(  # type: ignore[override]  # Dagster awaits it
        self, context: AutomationContext[dg.AssetKey]
    ) -> AutomationResult[dg.AssetKey]:
        view, key = context.asset_graph_view, context.key
        operand_result = await context.for_child_condition(
            self.operand, child_indices=[0], candidate_subset=view.get_full_subset(key=key)
        ).evaluate_async()
        due = _restore_subset(context, context.get_structured_cursor(as_type=SerializableEntitySubset))
        if (requested := context.get_previous_requested_subset(key)) is not None:
            due = due.compute_difference(requested)
        due = due.compute_union(operand_result.true_subset)
        return AutomationResult(
            context=context,
            true_subset=context.candidate_subset.compute_intersection(due),
            child_results=[operand_result],
            structured_cursor=due.convert_to_serializable_subset(),
        )


def _restore_subset(
    context: AutomationContext[dg.AssetKey], stored: SerializableEntitySubset[dg.AssetKey] | None
) -> EntitySubset[dg.AssetKey]:
    """Returns a stored subset, reduced to the days that the partitions definition has now."""
    if stored is None:
        return context.get_empty_subset()
    if (subset := context.asset_graph_view.get_subset_from_serializable_subset(stored)) is not None:
        return subset
    if context.partitions_def is None or not stored.is_partitioned:
        return context.get_empty_subset()
    days = context.partitions_def.filter_valid_partition_keys(set(stored.subset_value.get_partition_keys()))
    return context.asset_graph_view.get_full_subset(key=context.key).compute_intersection_with_partition_keys(days)


class _HasUpstreamRows(SubsetAutomationCondition[dg.AssetKey]):
    """Is true for the days that at least one upstream has.

    It is true for an unpartitioned asset once one of its upstreams was materialized.
    """

    @property
    def name(self) -> str:
        return "has_upstream_rows"

    async def compute_subset(  # type: ignore[override]  # Dagster awaits it
        self, context: AutomationContext[dg.AssetKey]
    ) -> EntitySubset[dg.AssetKey]:
        view, candidates = context.asset_graph_view, context.candidate_subset
        days: set[str] = set()
        for key in day_deps(context.asset_graph, context.key):
            present = await view.compute_materialized_asset_subset(key)
            if (requested := context.request_subsets_by_key.get(key)) is not None:
                present = present.compute_union(requested)
            if context.partitions_def is None:
                if not present.is_empty:
                    return candidates
            else:
                days |= present.expensively_compute_partition_keys()
        if context.partitions_def is None:
            return context.get_empty_subset()
        valid_days = context.partitions_def.filter_valid_partition_keys(days)
        return candidates.compute_intersection_with_partition_keys(valid_days)
