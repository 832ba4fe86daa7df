"""When assets are built: at cron ticks, and of daily assets only the days that new rows belong to.

Every live table names the local days of its new rows in the materializations it reports. An upstream without
partitions cannot name days, so it never marks any of a daily asset: snapshots, models and reference tables change
without making all days old.
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

TICK = "*/10 * * * *"
"""When the warm path is built. Other schedules of `when_changed` are ticks of this one, so that they share its run."""
HOURLY = "0 * * * *"
_RECORDS = 1000


def when_changed(cron: str = TICK) -> dg.AutomationCondition:
    """At each tick of `cron`, what has new rows upstream since it was last requested.

    A change counts from the request on, not from the end of the run: rows that are committed while a run reads are in
    the next one. An asset or a day that was never built, although its upstream has rows, is requested once: a new
    table, or a day before the first partition that the lake had when the definitions were loaded.
    """
    condition = dg.AutomationCondition
    changed = _AnyDayDeps(operand=_UpdatedElsewhere() | _RequestedThisTick())
    unbuilt = (condition.missing() & _HasUpstreamRows()).newly_true()
    due = _SinceRequested(operand=changed | unbuilt)
    return (condition.cron_tick_passed(cron) & due & _HasUpstreamRows() & ~condition.in_progress()).with_label(
        f"changed, at ticks of {cron}"
    )


def day_deps(graph: BaseAssetGraph[BaseAssetNode], key: dg.AssetKey) -> set[dg.AssetKey]:
    """Returns the upstreams whose changes `key` follows: all of an unpartitioned asset, those with days of a daily
    one."""
    node = graph.get(key)
    parents = {parent for parent in node.parent_entity_keys if isinstance(parent, dg.AssetKey)}
    if node.partitions_def is None:
        return parents
    return {parent for parent in parents if isinstance(graph.get(parent).partitions_def, dg.DailyPartitionsDefinition)}


# None of these is registered for serialization: they are evaluated in the code server, which alone knows them.
class _AnyDayDeps(AnyDepsCondition[dg.AssetKey]):
    """As any_deps_match, of `day_deps`."""

    def _get_dep_keys(self, key: dg.AssetKey, asset_graph: BaseAssetGraph[BaseAssetNode]) -> Set[dg.AssetKey]:
        return day_deps(asset_graph, key)


class _UpdatedElsewhere(SubsetAutomationCondition[dg.AssetKey]):
    """Updated since the last evaluation, by a run that did not build the asset in question as well.

    Dagster's executed_with_root_target looks at one materialization, the asset's last: of a run of many days, all but
    one would be built again.
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
        if updated.is_empty or not context.asset_graph.get(key).is_materializable:
            return updated
        run_ids: dict[str | None, str] = {}  # of each day, the last
        found = view.instance.fetch_materializations(
            dg.AssetRecordsFilter(key, after_storage_id=previous.last_event_id), limit=_RECORDS
        )
        for event in found.records:
            run_ids.setdefault(event.partition_key, event.run_id)
        together = {day for day, run_id in run_ids.items() if await self._builds(context, run_id)}
        if context.partitions_def is None:
            return context.get_empty_subset() if None in together else updated
        days = {day for day in together if day is not None} & updated.expensively_compute_partition_keys()
        return updated.compute_difference(updated.compute_intersection_with_partition_keys(days))

    async def _builds(self, context: AutomationContext[dg.AssetKey], run_id: str) -> bool:
        run = await RunRecord.gen(context.asset_graph_view, run_id)
        return run is not None and context.root_context.key in (run.dagster_run.asset_selection or ())


class _RequestedThisTick(SubsetAutomationCondition[dg.AssetKey]):
    """As will_be_requested, but across partitions definitions: the sensor puts all that is due into one run."""

    @property
    def name(self) -> str:
        return "requested_this_tick"

    def compute_subset(self, context: AutomationContext[dg.AssetKey]) -> EntitySubset[dg.AssetKey]:
        requested = context.request_subsets_by_key.get(context.key)
        return context.get_empty_subset() if requested is None else requested


@record
class _SinceRequested(BuiltinAutomationCondition[dg.AssetKey]):
    """Remembers for which days `operand` has held since they were last requested.

    Unlike since(), what holds now always counts: it is newer than the request of the evaluation before, from which
    on changes are looked for. The days are kept where the first partition has changed, too.
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
        held = await context.for_child_condition(
            self.operand, child_indices=[0], candidate_subset=view.get_full_subset(key=key)
        ).evaluate_async()
        due = _restored(context, context.get_structured_cursor(as_type=SerializableEntitySubset))
        if (requested := context.get_previous_requested_subset(key)) is not None:
            due = due.compute_difference(requested)
        due = due.compute_union(held.true_subset)
        return AutomationResult(
            context=context,
            true_subset=context.candidate_subset.compute_intersection(due),
            child_results=[held],
            structured_cursor=due.convert_to_serializable_subset(),
        )


def _restored(
    context: AutomationContext[dg.AssetKey], stored: SerializableEntitySubset[dg.AssetKey] | None
) -> EntitySubset[dg.AssetKey]:
    """Returns a stored subset, of the days that the partitions definition has now."""
    if stored is None:
        return context.get_empty_subset()
    if (subset := context.asset_graph_view.get_subset_from_serializable_subset(stored)) is not None:
        return subset
    if context.partitions_def is None or not stored.is_partitioned:
        return context.get_empty_subset()
    days = context.partitions_def.filter_valid_partition_keys(set(stored.subset_value.get_partition_keys()))
    return context.asset_graph_view.get_full_subset(key=context.key).compute_intersection_with_partition_keys(days)


class _HasUpstreamRows(SubsetAutomationCondition[dg.AssetKey]):
    """The days that some upstream has; an unpartitioned asset with an upstream that was ever materialized."""

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
        known = context.partitions_def.filter_valid_partition_keys(days)
        return candidates.compute_intersection_with_partition_keys(known)
