"""The streaming job: the one long run that carries every high-rate topic, and tells the graph how it goes."""

import time
from collections.abc import Sequence
from typing import Any

import dagster as dg

from city.contracts.model import Contract
from city.contracts.registry import domains
from city.settings import settings
from city.streaming.job import StreamJob
from city_assets import keys
from city_assets.bronze import describe
from resources.lake import LakeResource

JOB = "stream"


@dg.op(description="Streams until it is stopped, fenced off, or has run for CITY_STREAM_HOURS.")
def stream_topics(context: dg.OpExecutionContext, lake: LakeResource) -> None:
    config = settings()
    contracts = [c for d in domains() if config.is_active(d.name) for c in d.contracts if c.rate == "high"]
    job = StreamJob(contracts, config)
    reporter = Reporter(context, lake, config.report_seconds)
    ends = time.monotonic() + config.stream_hours * 3600

    def every_second(job: StreamJob) -> None:
        try:
            reporter.report(job)
        except Exception as error:  # the stream goes on, whatever the graph's storage or the preview says
            context.log.warning("cannot report to the asset graph: %s", error)
        if time.monotonic() > ends:
            job.stop.set()

    try:
        job.run(every_second)
    except dg.DagsterExecutionInterruptedError:  # `city down`, or a person in the UI: an end like any other
        context.log.info("asked to stop")
    reporter.report(job, now=True)


class Reporter:
    """Logs a materialization of each table that grew, at most every `seconds`."""

    def __init__(self, context: Any, lake: LakeResource, seconds: float) -> None:
        self._context, self._lake, self._seconds = context, lake, seconds
        self._reported: dict[dg.AssetKey, int] = {}
        self._last = 0.0

    def report(self, job: StreamJob, now: bool = False) -> None:
        if not now and time.monotonic() - self._last < self._seconds:
            return
        self._last = time.monotonic()
        for pipeline in job.pipelines:
            contract, summary = pipeline.contract, pipeline.report.summary()
            days = sorted(str(day) for day in pipeline.report.take_days())
            self._log(keys.bronze(contract), contract, "bronze", summary["rows"], summary, days)
            self._log(keys.quarantine(contract), contract, "quarantine", summary["quarantined"], summary, [None])

    def _log(
        self,
        key: dg.AssetKey,
        contract: Contract,
        layer: str,
        count: int,
        summary: dict[str, Any],
        partitions: Sequence[str | None],
    ) -> None:
        if not count or self._reported.get(key) == count:
            return
        self._reported[key] = count
        shown = {name: value for name, value in summary.items() if value is not None and not isinstance(value, dict)}
        metadata = describe(self._lake, contract, layer, shown)
        for partition in partitions:
            self._context.log_event(dg.AssetMaterialization(key, metadata=metadata, partition=partition))


# First in the queue, for all else is built from what it brings; asked for again by keep_streaming, not by a retry.
@dg.job(name=JOB, executor_def=dg.in_process_executor, tags={"dagster/priority": "10", "dagster/max_retries": "0"})
def stream_job() -> None:
    stream_topics()
