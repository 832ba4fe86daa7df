"""The streaming job of a Dagster without a supervisor: one long run that processes every high-rate topic."""

import time

import dagster as dg

from city.contracts.registry import streamed
from city.settings import settings
from city.stack.state import has_stream_part
from city.streaming.job import StreamJob

JOB = "stream"


@dg.op(description="Streams until it is stopped, fenced off, or has run for CITY_STREAM_HOURS.")
def stream_topics(context: dg.OpExecutionContext) -> None:
    """Runs the stream of all active domains until it is stopped. `keep_streaming` reports what it writes."""
    config = settings()
    if has_stream_part(config):
        context.log.info("`city up` runs the stream as a part of its own: nothing to do")
        return
    job = StreamJob(streamed(config), config)
    ends = time.monotonic() + config.stream_hours * 3600

    def every_second(job: StreamJob) -> None:
        if time.monotonic() > ends:
            job.stop.set()

    try:
        job.run(every_second)
    except dg.DagsterExecutionInterruptedError:  # a person in the UI, or the end of Dagster: a normal end
        context.log.info("interrupted: the stream stops")


# The job has the highest priority, because all else is built from its rows. keep_streaming replaces it, so no retries.
@dg.job(name=JOB, executor_def=dg.in_process_executor, tags={"dagster/priority": "10", "dagster/max_retries": "0"})
def stream_job() -> None:
    """Runs `stream_topics`."""
    stream_topics()
