"""Reports to Dagster what the history of a new city made, as materializations by asset and day.

The history is made outside Dagster. Without these reports, its days would be missing in the UI, and a later table would
not be built for them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import dagster as dg

from city.dagster_internals import BaseAssetGraph
from city.lake.snapshot import Snapshot
from city.settings import Settings, settings
from city.stack.history_plan import HistoryPlan, load_plan
from city.streaming.history import recorded_days
from city.tables.registry import tables
from city_assets import history, keys
from city_assets.automation import HISTORY_TAG

PORTION = 150
"""The materializations that a tick reports. The daemon writes each by itself, which takes some 10 ms."""
_DESCRIPTION = "Made by the history of the new city, outside Dagster."


@dataclass(frozen=True)
class Report:
    """A day of an asset that the history made, or an asset without days."""

    key: dg.AssetKey
    day: date | None = None

    def event(self, rows: Mapping[date, int]) -> dg.AssetMaterialization:
        """Builds the materialization. `rows` are the row counts by day."""
        if self.day is None:
            return dg.AssetMaterialization(self.key, _DESCRIPTION, tags={HISTORY_TAG: "true"})
        metadata = {"dagster/partition_row_count": rows[self.day]} if self.day in rows else {}
        return dg.AssetMaterialization(self.key, _DESCRIPTION, metadata, str(self.day), tags={HISTORY_TAG: "true"})


@dataclass
class Reported:
    """What is reported: the sensor's cursor. Its size is bounded by the number of assets and of the history's days.

    `days` has a number for each asset. Its lowest bit stands for the asset as a whole, and the bit n + 1 for the n-th
    day of the history, from `first` on. `domains` are those of which all is reported. A domain or a table that the
    city gets later is reported when its history is made.
    """

    first: date
    days: dict[str, int] = field(default_factory=dict)
    domains: set[str] = field(default_factory=set)

    @staticmethod
    def load(cursor: str | None, first: date) -> "Reported":
        """Reads a cursor. With one of an older release, or one that cannot be read, all is reported again."""
        try:
            stored = json.loads(cursor or "")
            days = {name: int(bits, 16) for name, bits in stored["days"].items()}
            return Reported(first, days, set(stored["domains"]))
        except (ValueError, TypeError, KeyError, AttributeError):
            return Reported(first)

    def dump(self) -> str:
        """Returns the cursor."""
        days = {name: f"{bits:x}" for name, bits in self.days.items()}
        return json.dumps({"days": days, "domains": sorted(self.domains)}, separators=(",", ":"))

    def add(self, report: Report) -> None:
        """Records that this is reported."""
        name = report.key.to_user_string()
        self.days[name] = self.days.get(name, 0) | self._bit(report)

    def __contains__(self, report: Report) -> bool:
        return bool(self.days.get(report.key.to_user_string(), 0) & self._bit(report))

    def _bit(self, report: Report) -> int:
        return 1 if report.day is None else 2 << (report.day - self.first).days


def reports(config: Settings, plan: HistoryPlan, graph: BaseAssetGraph) -> list[Report]:
    """Lists what the history has made. It is empty until all tables are made.

    An asset is listed before its upstreams. So whenever the automation looks, what the history builds from a reported
    day is reported too, and no past day looks unbuilt. The models are the last, because they are made last.
    """
    steps = history.done_steps(config, plan)
    if not steps:
        return []
    days_by_asset: dict[dg.AssetKey, list[date]] = {}
    for step in steps:
        if step.asset is not None and not history.is_training(step):
            days_by_asset.setdefault(keys.table(step.asset), []).extend(step.days)
    for domain in history.simulated(config):
        for contract in domain.contracts:
            if days := recorded_days(config.lake, contract, plan.local_days):
                days_by_asset[keys.bronze(contract)] = days
    downstream_first = [key for key in reversed(graph.toposorted_asset_keys) if key in days_by_asset]
    models = [keys.table(step.asset) for step in steps if step.asset is not None and history.is_training(step)]
    return [
        *(report for key in downstream_first for report in _of_asset(graph, key, days_by_asset[key])),
        *(Report(key) for key in models if graph.has(key)),
    ]


def _of_asset(graph: BaseAssetGraph, key: dg.AssetKey, days: Sequence[date]) -> Iterator[Report]:
    partitions = graph.get(key).partitions_def
    if partitions is None:
        yield Report(key)
        return
    valid = set(partitions.filter_valid_partition_keys({str(day) for day in days}))
    yield from (Report(key, day) for day in sorted(days) if str(day) in valid)


def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Reports the next portion of what is not reported yet (see `Reported`)."""
    config = settings()
    plan = load_plan(config)
    if plan is None or not plan.days:
        return dg.SkipReason("this city has no history")
    assert context.repository_def is not None
    reported = Reported.load(context.cursor, plan.local_days[0])
    active = [domain.name for domain in history.simulated(config)]
    if reported.domains >= set(active):
        return dg.SkipReason("the history is reported")
    is_finished = history.is_finished(config)  # read first: what is done then is listed
    made = reports(config, plan, context.repository_def.asset_graph)
    waiting = [report for report in made if report not in reported]
    portion = waiting[:PORTION]
    if not portion and not is_finished:
        return dg.SkipReason("waits for the history to be made")
    rows = _count_rows(config, {report.key for report in portion if report.day})
    for report in portion:
        reported.add(report)
    if is_finished and len(portion) == len(waiting):
        reported.domains |= set(active)
    return dg.SensorResult(
        asset_events=[report.event(rows.get(report.key, {})) for report in portion], cursor=reported.dump()
    )


def _count_rows(config: Settings, assets: Iterable[dg.AssetKey]) -> dict[dg.AssetKey, dict[date, int]]:
    """Returns the row counts by day of those assets that are daily tables."""
    snapshot, all_tables = Snapshot(config.lake), tables()
    names = {key: "/".join(key.path) for key in assets}
    return {key: snapshot.rows_by_day(name) for key, name in names.items() if name in all_tables}


report_history = dg.SensorDefinition(
    name="report_history",
    evaluation_fn=evaluate,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports what the history of a new city made, so that its days are not missing.",
)
