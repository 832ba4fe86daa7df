"""Turns Dagster's freshness states into findings: tables that are older than their policies allow."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from city.alerts.model import Finding, State
from city.dagster_internals import BaseAssetGraph, BaseAssetNode, FreshnessState, TimeWindowFreshnessPolicy
from city.severity import Severity
from city_assets.automation import is_history

FRESH = "fresh/"
"""The prefix of the findings' causes."""
_RECORDS = 1000
_STALE = (FreshnessState.WARN, FreshnessState.FAIL)


@dataclass(frozen=True)
class Freshness:
    """An asset's parents and freshness limits.

    `warn_after` and `fail_after` are the times after which an unbuilt change of a parent is a warning or an error.
    """

    parents: frozenset[dg.AssetKey]
    warn_after: timedelta
    fail_after: timedelta


def freshness_of(graph: BaseAssetGraph[BaseAssetNode]) -> dict[dg.AssetKey, Freshness]:
    """Returns the freshness limits of each asset that has a policy with a time window."""
    nodes = [(key, graph.get(key)) for key in graph.materializable_asset_keys]
    return {
        key: Freshness(
            frozenset(node.parent_keys),
            (policy.warn_window or policy.fail_window).to_timedelta(),
            policy.fail_window.to_timedelta(),
        )
        for key, node in nodes
        if isinstance(policy := node.freshness_policy, TimeWindowFreshnessPolicy)
    }


def freshness_findings(
    instance: dg.DagsterInstance, followed: Mapping[dg.AssetKey, Freshness], now: datetime | None = None
) -> list[Finding]:
    """Returns, for each asset, a finding on whether it is as new as its freshness policy demands.

    Dagster's daemon has recorded the state. An asset that is too old but newer than all its parents has nothing to be
    built from. So an asset fails only when the policy's time has passed since the first change of a parent that the
    asset lacks. After an hour of silence on a topic, for example, the first new row is not late at once.
    """
    moment, findings = (now or datetime.now(UTC)).timestamp(), []
    for key, record in instance.get_freshness_state_records([*followed]).items():
        freshness, name = followed[key], key.to_user_string()
        state: State = "passing" if record.freshness_state == FreshnessState.PASS else "unknown"
        severity: Severity = "error"
        title = ""
        if record.freshness_state in _STALE:
            since = _behind_since(instance, key, freshness.parents)
            behind = timedelta(seconds=0 if since is None else moment - since)
            state = "failing" if behind > freshness.warn_after else "passing"
            severity = "error" if behind > freshness.fail_after else "warning"
            if since is not None:
                title = (
                    f"{name} is older than its freshness policy allows: it lacks the data of {_format_minute(since)}"
                )
        labels = {"asset": name, "type": "freshness"}
        findings.append(Finding(f"{FRESH}{name}", severity, title, "freshness", None, state, labels))
    return findings


def _behind_since(instance: dg.DagsterInstance, key: dg.AssetKey, parents: Iterable[dg.AssetKey]) -> float | None:
    """Returns the time of the first change of a parent that the asset lacks (seconds since the epoch).

    Returns None if the asset lacks no change. What the history of a new city made is no change: it is reported in any
    order, after all of it was built.
    """
    last_build = instance.get_latest_materialization_event(key)
    after = last_build.timestamp if last_build is not None else 0.0
    first_changes = []
    for parent in parents:
        changes = instance.fetch_materializations(
            dg.AssetRecordsFilter(parent, after_timestamp=after), limit=_RECORDS, ascending=True
        ).records
        first_changes += [change.timestamp for change in changes if not is_history(change)][:1]
    return min(first_changes, default=None)


def _format_minute(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
