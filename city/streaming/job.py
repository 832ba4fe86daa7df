"""Runs the streaming job: a pipeline for each contract, in one process, with a report on disk every second."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from city.contracts.model import Contract
from city.lake.tables import ForeignTable
from city.settings import Settings
from city.stack.reports import StreamSummary
from city.stack.state import STREAM, Report, identity, process_of, read_json, stream_crashes
from city.stack.worker import Worker, summaries
from city.streaming.pipeline import Pipeline, SinkFactory, kafka_sink, questdb_sink
from city.streaming.sinks.features import feature_sink
from city.streaming.sinks.scores import score_sink
from city.streaming.source import TopicReset
from city.streaming.table_writer import Fenced

log = logging.getLogger(__name__)

FATAL = (Fenced, ForeignTable, TopicReset)
"""Errors after which no restart of a pipeline helps."""
SINKS: tuple[SinkFactory, ...] = (questdb_sink, kafka_sink, feature_sink, score_sink)


class StreamJob:
    """Streams the given contracts until `stop` is set, or until one of them cannot continue."""

    def __init__(
        self,
        contracts: Sequence[Contract],
        config: Settings,
        sinks: tuple[SinkFactory, ...] = SINKS,
    ) -> None:
        self.config = config
        self.stop = threading.Event()
        self.pipelines = [Pipeline(contract, config, self.stop, sinks) for contract in contracts]
        self._failure: BaseException | None = None
        self._ended = threading.Event()
        self._started = time.time()
        self._crashes = 0

    def run(self, every_second: Callable[["StreamJob"], None] | None = None) -> None:
        """Runs the pipelines and blocks until all have ended. Calls `every_second` about once a second.

        Fenced in one pipeline ends all of them, because another copy of the stream runs. ForeignTable or TopicReset
        ends only its own pipeline. Raises the first pipeline's error once all have ended.
        """
        workers = [
            Worker(f"stream-{pipeline.contract.name}", pipeline.run, stop=self.stop, fatal=FATAL)
            for pipeline in self.pipelines
        ]
        self._continue_report(read_json(self.config, STREAM))
        # A thread of its own: `every_second` may take long, and the report must still show that the stream is alive.
        reporter = Worker("stream-report", self._write_reports, stop=self._ended)
        try:
            for worker in workers:
                worker.start()
            reporter.start()
            while any(worker.is_alive() for worker in workers) and not self.stop.wait(1.0):
                self._collect_errors(workers)
                if every_second is not None:
                    every_second(self)
        finally:
            self.stop.set()
            for worker in workers:
                worker.join()
            self._collect_errors(workers)
            reporter.stop()
            self.write_report(ended=True)
            for worker in workers:
                worker.dismiss()
        if self._failure is not None:
            raise self._failure

    def _continue_report(self, before: Report | None) -> None:
        """Continues the report of the process before this one: what it counted, and the days that it let grow."""
        self._crashes = stream_crashes(before)
        for pipeline in self.pipelines:
            for table, days in (before or {}).get("grown", {}).get(pipeline.contract.topic, {}).items():
                pipeline.report.grown[table] = days | pipeline.report.grown[table]

    def _collect_errors(self, workers: list[Worker]) -> None:
        for pipeline, worker in zip(self.pipelines, workers, strict=True):
            pipeline.report.note("stream", worker.last_error)
            if worker.failure is not None:
                self._failure = self._failure or worker.failure
                if isinstance(worker.failure, Fenced):
                    self.stop.set()

    def _write_reports(self, worker: Worker) -> None:
        while not self._ended.wait(1.0):
            self.write_report()
            for pipeline in self.pipelines:
                pipeline.pace()
            worker.progress()

    def summary(self) -> list[StreamSummary]:
        """Returns the summary of each pipeline's report."""
        return [pipeline.report.summary() for pipeline in self.pipelines]

    def write_report(self, ended: bool = False) -> None:
        """Replaces <home>/run/stream.json, which `city status` and the keep-alive sensor read.

        A job that has ended leaves the report of another one that streams.
        """
        if ended and (other := process_of(read_json(self.config, STREAM))) is not None and other.pid != os.getpid():
            return
        content = {
            **identity(),
            "at": time.time(),
            "started": self._started,
            "ended": ended,
            "failure": str(self._failure) if self._failure else None,
            # A job that is fenced has a successor that streams, so it has not failed.
            "failed": ended and self._failure is not None and not isinstance(self._failure, Fenced),
            "crashes": self._crashes,
            "streams": self.summary(),
            "grown": {pipeline.contract.topic: pipeline.report.recently_grown() for pipeline in self.pipelines},
            "workers": summaries(),
        }
        self.config.run.mkdir(parents=True, exist_ok=True)
        fresh = self.config.run / f".{STREAM}.{os.getpid()}"
        try:
            fresh.write_text(json.dumps(content))
            fresh.replace(self.config.run / STREAM)
        except OSError as error:  # a full disk must not end the stream, which itself waits for space
            log.warning("cannot write %s: %s", STREAM, error)
