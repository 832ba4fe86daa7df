"""Brings messages to the topics of contracts: from MQTT, from the Kafka topics of sources, and from their feeds."""

import threading
from collections.abc import Sequence

from city.contracts.model import Contract
from city.settings import Settings
from city.sources.model import Source
from city.stack.worker import Worker
from city.streaming.deliveries import routes
from city.streaming.heartbeat import Heartbeat
from city.streaming.mqtt_session import Session

NAME = "mqtt-bridge"


class Bridge:
    """Runs a `Session`, the topics and the feeds of sources in workers, and reports their state.

    The worker creates a new session whenever one fails.
    """

    def __init__(self, contracts: Sequence[Contract], config: Settings, sources: Sequence[Source] = ()) -> None:
        self.config = config
        self.routes = routes(contracts, sources)
        self.heartbeat = Heartbeat(config, NAME)
        self.session: Session | None = None
        self.worker = Worker(NAME, self._run_session, longest_wait=5.0)
        # Without an MQTT topic there is no session, and no broker.
        self._workers = [*([self.worker] if self.routes else []), *self._source_workers(sources)]

    def run(self, stop: threading.Event) -> None:
        """Runs the bridge and blocks until `stop` is set.

        A message that Kafka has not confirmed by then is not acknowledged, so the MQTT broker sends it again.
        """
        for worker in self._workers:
            worker.start()
        try:
            while not stop.wait(0.2):
                self._write_heartbeat()
        finally:
            for worker in self._workers:
                worker.stop_requested.set()
            for worker in self._workers:
                worker.stop()
            self._write_heartbeat()

    def _write_heartbeat(self) -> None:
        complaints = [worker.complaint() for worker in self._workers]
        self.heartbeat.error = next((complaint for complaint in complaints if complaint), None)
        self.heartbeat.beat(lag=self.session.waiting if self.session else 0)

    def _source_workers(self, sources: Sequence[Source]) -> list[Worker]:
        """Returns the workers of topics and of feeds, where there are any."""
        workers = []
        if any(source.kafka for source in sources):
            from city.streaming.source_carrier import SourceTopics

            workers.append(Worker("source-topics", SourceTopics(sources, self.config, self.heartbeat).run))
        if self.config.feeds:
            from city.streaming.feeds import Feeds

            workers.append(Worker("feeds", Feeds(sources, self.config, self.heartbeat).run))
        return workers

    def _run_session(self, worker: Worker) -> None:
        self.session = Session(self.routes, self.config, worker, self.heartbeat.count)
        self.session.run()
