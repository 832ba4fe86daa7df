"""The ticks of the sensor keep_fresh on the real definitions, while time is moved."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData

from sensors_and_schedules.keep_fresh import evaluate

ZONE = ZoneInfo("America/New_York")
NOW = datetime.now(ZONE).replace(hour=12, minute=1, second=5, microsecond=0)
TODAY = NOW.date()


def days_of(request: dg.RunRequest) -> list[date]:
    if request.partition_key is not None:
        return [date.fromisoformat(request.partition_key)]
    if "dagster/asset_partition_range_start" not in request.tags:
        return []
    first, last = (date.fromisoformat(request.tags[f"dagster/asset_partition_range_{end}"]) for end in ("start", "end"))
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


@dataclass
class City:
    """The sensor's ticks, one after the other. What a tick requests is built before the next, by a run of its own."""

    instance: dg.DagsterInstance
    repository: dg.RepositoryDefinition
    cursor: str | None = None
    runs: list[dg.RunRequest] = field(default_factory=list)
    builds: bool = True

    def grew(self, *tables: dg.AssetKey, day: date | None = TODAY) -> None:
        """As the stream reports it."""
        for key in tables:
            partition = None if day is None else str(day)
            self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))

    def tick(self, minutes: float) -> list[dg.RunRequest]:
        """What is requested so many minutes after the city's first look."""
        (sensor,) = (s for s in self.repository.sensor_defs if s.name == "keep_fresh")
        context = dg.build_sensor_context(self.instance, self.cursor, repository_def=self.repository)
        result = evaluate(sensor, context, (NOW + timedelta(minutes=minutes)).astimezone(UTC))  # type: ignore[arg-type]
        if isinstance(result, dg.SkipReason):
            return []
        self.cursor = result.cursor
        requests = list(result.run_requests or ())
        for request in requests:
            self._run(request)
        self.runs += requests
        return requests

    def _run(self, request: dg.RunRequest) -> None:
        status = dg.DagsterRunStatus.SUCCESS if self.builds else dg.DagsterRunStatus.STARTED
        selection = frozenset(request.asset_selection or ())
        job = self.repository.get_implicit_global_asset_job_def().get_subset(asset_selection=selection)
        run = self.instance.create_run_for_job(job, status=status, tags=dict(request.tags), asset_selection=selection)
        if not self.builds:
            return
        for key in selection:
            partitioned = self.repository.asset_graph.get(key).partitions_def is not None
            for day in days_of(request) if partitioned else [None]:
                event = dg.AssetMaterialization(key, partition=None if day is None else str(day))
                self.instance.report_dagster_event(
                    DagsterEvent(
                        DagsterEventType.ASSET_MATERIALIZATION.value,
                        "__ASSET_JOB",
                        event_specific_data=StepMaterializationData(event),
                    ),
                    run.run_id,
                )


def selected(request: dg.RunRequest) -> set[dg.AssetKey]:
    return set(request.asset_selection or ())
