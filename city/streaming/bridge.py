"""Copies MQTT messages to Kafka: runs the MQTT session in a worker, and reports its state."""

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
    """Runs a `Session` in a worker and reports its state. The worker creates a new session whenever one fails."""

    def __init__(self, contracts: Sequence[Contract], config: Settings, sources: Sequence[Source] = ()) -> None:
        self.config = config
        self.routes = routes(contracts, sources)
        self.heartbeat = Heartbeat(config, NAME)
        self.session: Session | None = None
        self.worker = Worker(NAME, self._run_session, longest_wait=5.0)

    def run(self, stop: threading.Event) -> None:
        """Runs the bridge and blocks until `stop` is set.

        A message that Kafka has not confirmed by then is not acknowledged, so the MQTT broker sends it again.
        """
        self.worker.start()
        try:
            while not stop.wait(0.2):
                self._write_heartbeat()
        finally:
            self.worker.stop()
            self._write_heartbeat()

    def _write_heartbeat(self) -> None:
        self.heartbeat.error = self.worker.complaint()
        self.heartbeat.beat(lag=self.session.waiting if self.session else 0)

    def _run_session(self, worker: Worker) -> None:
        self.session = Session(self.routes, self.config, worker, self.heartbeat.count)
        self.session.run()
