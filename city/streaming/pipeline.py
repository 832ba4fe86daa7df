"""Runs one contract's hot path until it is stopped: Kafka → decode → bronze → sinks."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import polars as pl
from confluent_kafka import KafkaException

from city.contracts.model import Contract
from city.quality.announced import KnownIds
from city.settings import Settings
from city.stack.backoff import Backoff, Stopped
from city.stack.worker import Worker
from city.streaming.bronze import BronzeStream, watermarks_after
from city.streaming.decode import decode
from city.streaming.pacing import Pacing
from city.streaming.records import Batch, RawBatch
from city.streaming.report import StreamReport
from city.streaming.sinks.base import Sink, SinkWorker, contract_windows, drain
from city.streaming.sinks.kafka import KafkaSink
from city.streaming.sinks.questdb import QuestDBSink
from city.streaming.source import KafkaSource
from city.streaming.table_writer import Fenced
from city.streaming.topics import ensure_topics
from city.streaming.windows import ContractWindows

log = logging.getLogger(__name__)

_CHECK_SECONDS = 2.0
_DRAIN_SECONDS = 8.0
_REJECTS_SECONDS = 3.0

SinkFactory = Callable[[Contract, Settings, BronzeStream], Sink | None]
"""Creates a contract's sink, or returns None where the contract has nothing for it."""


def questdb_sink(contract: Contract, config: Settings, bronze: BronzeStream) -> Sink:
    """Creates the sink that writes the contract's events and windows to QuestDB."""
    return QuestDBSink(contract, config.questdb, bronze)


def kafka_sink(contract: Contract, config: Settings, bronze: BronzeStream) -> Sink:
    """Creates the sink that publishes the contract's events and windows to Kafka."""
    return KafkaSink(contract, config.kafka)


class Pipeline:
    """Runs one contract's stream in the caller's thread.

    It ends when `stop` is set. Raises Fenced, ForeignTable or TopicReset.
    """

    def __init__(
        self,
        contract: Contract,
        config: Settings,
        stop: threading.Event,
        sinks: tuple[SinkFactory, ...] = (questdb_sink, kafka_sink),
    ) -> None:
        self.contract, self.config = contract, config
        self.report = StreamReport(contract.topic, timezone=config.timezone)
        self._stop, self._factories = stop, sinks
        self._pacing = Pacing(config.latency_seconds)
        self._prompt: frozenset[str] = frozenset()

    def run(self, worker: Worker) -> None:
        """Streams until a stop; the body of the pipeline's worker. Waits and retries while Kafka is unavailable."""
        backoff = Backoff(self._stop)
        while not self._stop.is_set():
            try:
                self._run_stream(worker)
            except Stopped:
                return
            except KafkaException as error:
                kafka = self.config.kafka
                self._report_error("source", f"Kafka at {kafka} is unavailable: {kafka.explain(error.args[0])}")
                try:
                    backoff.wait()
                except Stopped:
                    return

    def pace(self) -> None:
        """Corrects the gathering time by the measured latency. Call it every second."""
        latencies = self.report.sinks_p95_ms()
        slowest = max((p95 for name in self._prompt if (p95 := latencies.get(name)) is not None), default=None)
        if slowest is not None:
            self._pacing.correct(slowest / 1000)

    def _run_stream(self, worker: Worker) -> None:
        """Streams until a stop, or until the topic has new partitions."""
        config, contract = self.config, self.contract
        ensure_topics(config.kafka, [contract])
        source = KafkaSource(config.kafka, contract.topic, config.batch_rows, self._pacing)
        workers: list[SinkWorker] = []
        halt = threading.Event()
        committing: Future[None] | None = None
        committer = ThreadPoolExecutor(1, thread_name_prefix=f"commit-{contract.name}")
        try:
            bronze = BronzeStream(config.lake, contract, rejects_seconds=_REJECTS_SECONDS)
            partitions = source.partitions()
            # The check comes before the claim: a copy that cannot read Kafka must not end a copy that can.
            topic_id = source.verify(bronze.load(partitions), bronze.resume, bronze.topic_id())
            bronze.claim(partitions, self._stop, self._report_storage_error, topic_id)
            source.start(bronze.resume)
            self.report.note("bronze", None)
            windows = contract_windows(contract, bronze)
            workers = self._create_sinks(bronze, windows, halt)
            for sink_worker in workers:
                sink_worker.start()
            log.info("%s: streaming from %s", contract.topic, bronze.position)
            watermarks, known = dict(bronze.watermarks), KnownIds(contract, config)
            checked = time.monotonic()
            while not self._stop.is_set() and not source.changed:
                raw = source.poll()
                if raw is not None:
                    rows, rejects = decode(contract, raw, watermarks, known.current())
                    watermarks |= watermarks_after(rows)
                    if committing is not None:
                        committing.result()
                    # While a batch is committed, the next one is decoded.
                    committing = committer.submit(self._commit_batch, raw, rows, rejects, bronze, workers)
                    checked = time.monotonic()  # a commit makes the same check
                else:
                    if committing is not None:
                        committing.result()
                        committing = None
                    bronze.flush_rejects(self._stop, self._report_storage_error, due=True)
                    if time.monotonic() - checked > _CHECK_SECONDS:
                        bronze.check()
                        checked = time.monotonic()
                worker.progress(len(raw) if raw is not None else 0)
                self._update_report(source, workers, windows)
            if committing is not None:
                committing.result()
            bronze.flush_rejects(self._stop, self._report_storage_error)
            drain(workers, _DRAIN_SECONDS)
        finally:
            committer.shutdown()
            halt.set()
            for sink_worker in workers:
                sink_worker.join(5)
            source.close()
            # Fenced takes precedence over an error of the source. Otherwise this stream would start again and fence the
            # copy that has replaced it.
            if committing is not None and isinstance(error := committing.exception(), Fenced):
                raise error

    def _create_sinks(self, bronze: BronzeStream, windows: ContractWindows, halt: threading.Event) -> list[SinkWorker]:
        workers = []
        for factory in self._factories:
            sink = factory(self.contract, self.config, bronze)
            if sink is None:
                continue
            recorded = bronze.sink_position(sink.name)
            workers.append(SinkWorker(sink, bronze, recorded, halt, windows, self._on_applied))
        self._prompt = frozenset(worker.name for worker in workers if worker.sink.prompt)
        return workers

    def _commit_batch(
        self, raw: RawBatch, rows: pl.DataFrame, rejects: pl.DataFrame, bronze: BronzeStream, workers: list[SinkWorker]
    ) -> None:
        positions = {worker.name: dict(worker.position) for worker in workers if worker.sink.recorded}
        batch = Batch(rows, raw.start, raw.end, raw.polled)
        batch = bronze.commit(batch, rejects, positions, self._stop, self._report_storage_error)
        self.report.note("bronze", None)
        if batch.end:
            for worker in workers:
                worker.offer(batch)
        rows = batch.rows
        times = rows[self.contract.event_time]
        self.report.record_commit(times, rejects.height, arrivals=rejects["arrived"])
        if rows.height:
            transit = (rows["_arrived"] - times).dt.total_microseconds().median()
            self._pacing.add_transit(float(transit) / 1e6 if isinstance(transit, int | float) else 0.0)
        if not self._prompt:
            self._pacing.add_overhead(time.monotonic() - raw.polled)

    def _on_applied(self, sink: str, batch: Batch) -> None:
        """Reports a batch that a sink has applied. The sinks' threads call it."""
        self.report.record_applied(sink, batch.rows[self.contract.event_time])
        if sink in self._prompt and batch.polled is not None:
            self._pacing.add_overhead(time.monotonic() - batch.polled)

    def _update_report(self, source: KafkaSource, workers: list[SinkWorker], windows: ContractWindows) -> None:
        report = self.report
        report.lag = source.lag()
        report.sinks = {worker.name: worker.behind() for worker in workers}
        report.note("source", source.last_error)
        report.note("expired", source.expired)
        for worker in workers:
            report.note(f"sink {worker.name}", worker.last_error)
        report.late, report.too_late = windows.late, windows.too_late

    def _report_storage_error(self, reason: str) -> None:
        self._report_error("bronze", reason)

    def _report_error(self, part: str, reason: str) -> None:
        self.report.note(part, reason)
        log.warning("%s: %s", self.contract.topic, reason)
