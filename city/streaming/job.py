"""The streaming job: a pipeline for each contract, in one process, with a report on disk every second."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from city.contracts.model import Contract
from city.features.live import feature_sink
from city.settings import Settings
from city.stack.state import identity
from city.stack.worker import summaries
from city.streaming.pipeline import Pipeline, SinkFactory, kafka_sink, questdb_sink
from city.streaming.scoring import score_sink

log = logging.getLogger(__name__)

REPORT = "stream.json"
SINKS: tuple[SinkFactory, ...] = (questdb_sink, kafka_sink, feature_sink, score_sink)


class StreamJob:
    """Streams the given contracts until `stop` is set, or until one of them can not go on."""

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
        self._started = time.time()

    def run(self, every_second: Callable[["StreamJob"], None] | None = None) -> None:
        """Blocks. Raises what a pipeline raised: Fenced, ForeignTable, TopicReset."""
        threads = [
            threading.Thread(target=self._guard, args=(pipeline,), name=f"stream-{pipeline.contract.name}")
            for pipeline in self.pipelines
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads) and not self.stop.wait(1.0):
                self.write_report()
                if every_second is not None:
                    every_second(self)
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()
            self.write_report(ended=True)
        if self._failure is not None:
            raise self._failure

    def summary(self) -> list[dict[str, Any]]:
        return [pipeline.report.summary() for pipeline in self.pipelines]

    def write_report(self, ended: bool = False) -> None:
        """Replaces <home>/run/stream.json, which `city status` and the keep-alive sensor read."""
        content = {
            **identity(),
            "at": time.time(),
            "started": self._started,
            "ended": ended,
            "failure": str(self._failure) if self._failure else None,
            "streams": self.summary(),
            "workers": summaries(),
        }
        self.config.run.mkdir(parents=True, exist_ok=True)
        fresh = self.config.run / f".{REPORT}.{os.getpid()}"
        try:
            fresh.write_text(json.dumps(content))
            fresh.replace(self.config.run / REPORT)
        except OSError as error:  # a full disk must not end the stream that waits for space
            log.warning("cannot write %s: %s", REPORT, error)

    def _guard(self, pipeline: Pipeline) -> None:
        try:
            pipeline.run()
        except BaseException as error:
            log.error("%s: %s", pipeline.contract.topic, error)
            self._failure = self._failure or error
            pipeline.report.note("stream", str(error))
            self.stop.set()
