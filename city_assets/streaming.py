"""The streaming job: one long run that processes every high-rate topic and reports materializations to the graph."""

import math
import time
from collections import deque
from datetime import date
from typing import cast

import dagster as dg

from city.contracts.model import Contract
from city.contracts.registry import domains
from city.settings import settings
from city.stack.reports import StreamSummary
from city.streaming.job import StreamJob
from city_assets import keys
from city_assets.bronze import describe
from city_assets.preview import Metadata
from resources.lake import LakeResource

JOB = "stream"


@dg.op(description="Streams until it is stopped, fenced off, or has run for CITY_STREAM_HOURS.")
def stream_topics(context: dg.OpExecutionContext, lake: LakeResource) -> None:
    """Runs the stream of all active domains until it is stopped, and reports its progress to the asset graph."""
    config = settings()
    contracts = [c for d in domains() if config.is_active(d.name) for c in d.contracts if c.rate == "high"]
    job = StreamJob(contracts, config)
    reporter = Reporter(context, lake, config.report_seconds)
    ends = time.monotonic() + config.stream_hours * 3600

    def every_second(job: StreamJob) -> None:
        try:
            reporter.report(job)
        except Exception as error:  # a fault of the graph's storage or of the preview must not stop the stream
            context.log.warning("cannot report to the asset graph: %s", error)
        if time.monotonic() > ends:
            job.stop.set()

    try:
        job.run(every_second)
    except dg.DagsterExecutionInterruptedError:  # `city down`, or a person in the UI: a normal end
        context.log.info("interrupted: the stream stops")
    reporter.report(job, now=True)


class Reporter:
    """Logs a materialization for each day of each table that grew, at most every `seconds`.

    The event log of one run holds all of these, and a run lasts a day. A preview of the rows is by far the largest part
    of an event. Therefore a table's preview is logged at most every `preview_seconds`.
    """

    def __init__(
        self, context: dg.OpExecutionContext, lake: LakeResource, seconds: float, preview_seconds: float = 600.0
    ) -> None:
        self._context, self._lake = context, lake
        self._seconds, self._preview_seconds = seconds, preview_seconds
        self._unreported: dict[dg.AssetKey, set[date]] = {}
        self._previewed: dict[dg.AssetKey, tuple[float, int]] = {}  # the time, and the table's rows less those counted
        self._last = 0.0

    def report(self, job: StreamJob, now: bool = False) -> None:
        """Logs the days that grew since the last report. Does nothing before `seconds` have passed, unless `now`."""
        if not now and time.monotonic() - self._last < self._seconds:
            return
        self._last = time.monotonic()
        for pipeline in job.pipelines:
            contract, report = pipeline.contract, pipeline.report
            for key, days in (
                (keys.bronze(contract), report.take_days()),
                (keys.quarantine(contract), report.take_quarantine_days()),
            ):
                self._unreported.setdefault(key, set()).update(days)
        for pipeline in job.pipelines:
            contract, summary = pipeline.contract, pipeline.report.summary()
            self._log_days(keys.bronze(contract), contract, "bronze", summary["rows"], summary)
            self._log_days(keys.quarantine(contract), contract, "quarantine", summary["quarantined"], summary)

    def _log_days(self, key: dg.AssetKey, contract: Contract, layer: str, count: int, summary: StreamSummary) -> None:
        days = self._unreported[key]
        if not days:
            return
        metadata: Metadata = {name: value for name, value in summary.items() if isinstance(value, str | int | float)}
        previewed, others = self._previewed.get(key, (-math.inf, 0))
        if time.monotonic() - previewed >= self._preview_seconds:
            metadata = describe(self._lake, contract, layer, metadata)
            self._previewed[key] = time.monotonic(), cast(int, metadata["dagster/row_count"]) - count
        else:
            metadata["dagster/row_count"] = others + count
        for day in sorted(days):  # a day that cannot be logged now is logged the next time
            self._context.log_event(dg.AssetMaterialization(key, metadata=metadata, partition=str(day)))
            days.remove(day)
        # The context keeps each event until the op ends, which for the stream is a day: 4 kB an event, 150 MB a day.
        deque(self._context.consume_events(), maxlen=0)


# The job has the highest priority, because all else is built from its rows. keep_streaming replaces it, so no retries.
@dg.job(name=JOB, executor_def=dg.in_process_executor, tags={"dagster/priority": "10", "dagster/max_retries": "0"})
def stream_job() -> None:
    """Runs `stream_topics`."""
    stream_topics()
