"""Builds what has changed. The automation conditions select the days and assets, and one run builds them.

Dagster's own sensor requests a run or a backfill for each partitions definition and day. A run takes 5 to 15 s of CPU
to start, whatever it builds. Therefore this sensor puts the newest day and all unpartitioned assets into one run.
Older days are due after late events, or after a city was off. They are built in a separate run with a lower priority,
one range of days at each tick.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg

from city import local_time
from city.dagster_internals import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    AutomationTickEvaluationContext,
    get_latest_completed_cron_tick,
    wrap_sensor_evaluation,
)
from city.settings import settings
from city_assets.automation import TICK
from sensors_and_schedules.turns import TAKES_TURNS

BUILD = "city/build"
"""The tag of each run that this sensor requests. Its value is `newest` or `older`."""
NEWEST, OLDER = "newest", "older"
TICK_TAG = "city/tick"
"""The tag of a run of older days. Its value is the id of the evaluation that requested the run."""
_PRIORITY = {NEWEST: "5", OLDER: "-5"}  # the stream has 10, all other runs have 0
_PENDING = "city/older_days"
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass
class DueAssets:
    """The assets that must be built: unpartitioned assets, and daily assets by day."""

    assets: set[dg.AssetKey] = field(default_factory=set)
    days: dict[date, set[dg.AssetKey]] = field(default_factory=dict)

    def add(self, days: Mapping[date, Collection[dg.AssetKey]]) -> None:
        """Adds daily assets by day."""
        for day, keys in days.items():
            self.days.setdefault(day, set()).update(keys)

    @classmethod
    def from_requests(cls, requests: Iterable[dg.RunRequest]) -> "DueAssets":
        """Collects the run requests of Dagster's evaluation, which are one for each partition."""
        due = cls()
        for request in requests:
            keys = set(request.asset_selection or ())
            if request.partition_key is None:
                due.assets |= keys
            else:
                due.add({date.fromisoformat(request.partition_key): keys})
        return due

    def take_newest(self, today: date) -> dg.RunRequest | None:
        """Removes what is due today and all unpartitioned assets. Returns their run, or None if nothing is due."""
        keys = self.days.pop(today, set())
        selection, self.assets = keys | self.assets, set()
        return _build_request(NEWEST, selection, (today, today) if keys else None) if selection else None

    def take_older(self, tick: str) -> dg.RunRequest | None:
        """Removes the newest range of successive days on which the same assets are due.

        Returns the run of the range, or None if no day is due.
        """
        if not self.days:
            return None
        first = last = max(self.days)
        keys = self.days.pop(last)
        while self.days.get(before := first - timedelta(days=1)) == keys:
            first = before
            del self.days[before]
        return _build_request(OLDER, keys, (first, last), tick)


def _build_request(
    build: str, keys: Collection[dg.AssetKey], days: tuple[date, date] | None, tick: str | None = None
) -> dg.RunRequest:
    tags = {BUILD: build, "dagster/priority": _PRIORITY[build]} | ({TICK_TAG: tick} if tick else {})
    if build == NEWEST:
        tags |= TAKES_TURNS
    if days is None or days[0] == days[1]:
        return dg.RunRequest(
            asset_selection=sorted(keys), tags=tags, partition_key=None if days is None else str(days[0])
        )
    range_tags = {ASSET_PARTITION_RANGE_START_TAG: str(days[0]), ASSET_PARTITION_RANGE_END_TAG: str(days[1])}
    return dg.RunRequest(asset_selection=sorted(keys), tags=tags | range_tags)


def evaluate(
    sensor: "KeepFresh", context: dg.SensorEvaluationContext, now: datetime | None = None
) -> dg.SensorResult | dg.SkipReason:
    """Evaluates the automation conditions once after each tick.

    Requests at most one run of today and one run of older days. Evaluates nothing while a run of today is unfinished,
    so that no runs queue up behind it.
    """
    # Imported here, because they load Dagster's daemon: 20 MB in each run and in the stream.
    from city.dagster_internals import (
        asset_daemon_cursor_from_instigator_serialized_cursor,
        asset_daemon_cursor_to_instigator_serialized_cursor,
    )

    now = now or datetime.now(UTC)
    assert context.repository_def is not None
    graph, instance = context.repository_def.asset_graph, context.instance
    cursor = asset_daemon_cursor_from_instigator_serialized_cursor(context.cursor, graph)
    evaluated_at = [condition.temporal_context.effective_dt for condition in cursor.previous_condition_cursors or ()]
    if evaluated_at and get_latest_completed_cron_tick(TICK, now, None) <= max(evaluated_at):
        return dg.SkipReason(f"waits for the next tick of {TICK}")
    if _is_unfinished(instance, NEWEST):
        return dg.SkipReason("the run of the last tick goes on")
    evaluation = AutomationTickEvaluationContext(
        evaluation_id=cursor.evaluation_id + 1,
        instance=instance,
        asset_graph=graph,
        cursor=cursor,
        materialize_run_tags={},
        observe_run_tags={},
        auto_observe_asset_keys=set(),
        asset_selection=sensor.asset_selection,
        emit_backfills=False,
        evaluation_time=now,
        logger=context.log,
    )
    requests, new_cursor, evaluations = evaluation.evaluate()
    due = DueAssets.from_requests(requests)
    due.add(_load_pending_days(instance))
    today = now.astimezone(local_time.zone(settings().timezone)).date()
    runs = [due.take_newest(today)]
    waiting = {day: set(keys) for day, keys in due.days.items()}
    tick = str(cursor.evaluation_id + 1)
    if not _is_unfinished(instance, OLDER) and (older := due.take_older(tick)):
        runs.append(older)
    # The pending days are stored before the cursor: if this tick is lost, its days are due twice rather than never. The
    # days of a range that is requested now are stored until its run exists.
    requested = {day: keys for day, keys in waiting.items() if day not in due.days}
    _store_pending(instance, PendingDays(due.days, requested, tick))
    return dg.SensorResult(
        run_requests=[run for run in runs if run is not None],
        cursor=asset_daemon_cursor_to_instigator_serialized_cursor(new_cursor),
        automation_condition_evaluations=evaluations,
    )


class KeepFresh(dg.AutomationConditionSensorDefinition):
    """Dagster's automation sensor, with `evaluate` in place of its own evaluation. The UI shows it as such."""

    def __init__(self, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            "keep_fresh",
            target=dg.AssetSelection.all(),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=30,
            description="Requests the days of the tables whose sources have changed: one run at a tick.",
            metadata=metadata,
            use_user_code_server=True,
            emit_backfills=False,
        )
        self._raw_fn = partial(evaluate, self)
        self._evaluation_fn = wrap_sensor_evaluation(self.name, self._raw_fn)

    def with_attributes(self, *, jobs: Any = None, metadata: Mapping[str, Any] | None = None) -> "KeepFresh":
        """Returns a copy of this sensor with other metadata. `jobs` is ignored, because the sensor targets assets."""
        return KeepFresh(self.metadata if metadata is None else metadata)


def _is_unfinished(instance: dg.DagsterInstance, build: str) -> bool:
    return bool(instance.get_run_records(dg.RunsFilter(tags={BUILD: build}, statuses=_UNFINISHED), limit=1))


Days = Mapping[date, Collection[dg.AssetKey]]


@dataclass(frozen=True)
class PendingDays:
    """The older days that are due.

    `waiting` days have no run yet. `requested` days are in the run that the evaluation `tick` requested.
    """

    waiting: Days
    requested: Days
    tick: str


def _load_pending_days(instance: dg.DagsterInstance) -> Days:
    """Loads the older days that earlier ticks did not request, or whose requested run does not exist."""
    stored = json.loads(instance.daemon_cursor_storage.get_cursor_values({_PENDING}).get(_PENDING) or "{}")
    if not stored:
        return {}
    due = DueAssets()
    due.add(_parse_days(stored["waiting"]))
    if not instance.get_run_records(dg.RunsFilter(tags={BUILD: OLDER, TICK_TAG: stored["tick"]}), limit=1):
        due.add(_parse_days(stored["requested"]))
    return due.days


def _parse_days(stored: Mapping[str, Sequence[str]]) -> Days:
    return {
        date.fromisoformat(day): {dg.AssetKey.from_user_string(key) for key in keys} for day, keys in stored.items()
    }


def _store_pending(instance: dg.DagsterInstance, pending: PendingDays) -> None:
    def texts(days: Days) -> dict[str, list[str]]:
        return {str(day): sorted(key.to_user_string() for key in keys) for day, keys in days.items()}

    content = {"waiting": texts(pending.waiting), "requested": texts(pending.requested), "tick": pending.tick}
    instance.daemon_cursor_storage.set_cursor_values({_PENDING: json.dumps(content)})


keep_fresh = KeepFresh()
