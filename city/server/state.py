"""The state of the server: the objects that the routes use, which start and stop with the server."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property

from sqlalchemy.exc import SQLAlchemyError

from city.alerts import backlog
from city.alerts.conditions import Condition
from city.alerts.dispatch import deliver
from city.alerts.outcome_metrics import of_model
from city.alerts.reader import AlarmReader
from city.alerts.store import AlertStore, alert_store
from city.alerts.watch import PlatformWatch, shared
from city.features.freshness import FeatureFreshness
from city.live.hub import Hub
from city.live.layers import Layer, feeds
from city.live.reader import Delta, Live
from city.models.model import Model
from city.server.health import check_servers
from city.serving.predictor import Predictor
from city.settings import Settings
from city.stack.worker import Worker
from city.streaming.heartbeat import Heartbeat
from city.web.keys import Keys, Tokens
from city.web.metrics import AlarmFigures, Champion, Metrics

SERVER = "server"
_WATCH_SECONDS, _DELIVERY_SECONDS = 2.0, 1.0
_SWITCH_SECONDS = 0.001
"""Threads that write and load must not delay a request by Python's default of five milliseconds."""


class City:
    """The state of one server: keys, metrics, the predictor, the live city, and the workers of the alarms."""

    def __init__(
        self,
        config: Settings,
        models: Mapping[str, Model],
        layers: Sequence[Layer],
        conditions: Sequence[Condition] = (),
    ) -> None:
        self.config = config
        self.started_at = time.time()
        self.keys = Keys(config)
        self.tokens = Tokens(config, self.keys)
        self.metrics = Metrics(config)
        self.predictor = Predictor(config, models, self.metrics)
        self.live = Live(config, layers, feeds(models), models, self.predictor.versions)
        self.hub = Hub(self.live.snapshot, self.metrics)
        self._alert_store: AlertStore | None = None
        self._alert_store_lock = threading.Lock()
        self.alarms = AlarmReader(config, conditions, self.alert_store)
        self._heartbeat = Heartbeat(config, SERVER)
        self._heartbeat_worker = Worker("heartbeat", self._send_heartbeats)
        expected = (OSError, SQLAlchemyError)
        self._watch_worker = Worker("platform alarms", self._watch_platform, expected=expected)
        # The worker waits for slow servers: for each channel at most as long as the lease of its messages.
        self._delivery_worker = Worker(
            "alarm messages", self._deliver_messages, expected=expected, stall_seconds=float("inf")
        )
        self.closers: list[Callable[[], None]] = []
        """What routes call at the end, to finish what they have begun."""
        self.failing_channels: dict[str, str] = {}
        """The channels that do not accept the messages of alarms, with the reason, as of the last look."""

    async def start(self) -> None:
        """Starts the predictor, the live city and the workers."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        await self.predictor.start()
        loop = asyncio.get_running_loop()

        def publish(delta: Delta) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.hub.publish, delta)

        self.live.start(publish)
        self.alarms.start()
        self._heartbeat_worker.start()
        self._watch_worker.start()
        self._delivery_worker.start()

    async def stop(self) -> None:
        """Stops the workers, the live city and the predictor."""
        await asyncio.to_thread(self._watch_worker.stop)
        await asyncio.to_thread(self._delivery_worker.stop)
        await asyncio.to_thread(self._heartbeat_worker.stop)
        await asyncio.to_thread(self.alarms.stop)
        await asyncio.to_thread(self.live.stop)
        await self.predictor.stop()
        for close in self.closers:
            await asyncio.to_thread(close)

    def _deliver_messages(self, worker: Worker) -> None:
        """Sends the messages of alarms. It has a worker of its own, so that a slow channel does not delay the watch."""
        while not worker.stop_requested.wait(_DELIVERY_SECONDS):
            worker.progress(deliver(self.alert_store(), self.config).sent)

    def alert_store(self) -> AlertStore:
        """The alert store of this server, which is opened at the first call. Blocking.

        Raises OSError or SQLAlchemyError where its database is unavailable.
        """
        with self._alert_store_lock:
            if self._alert_store is None:
                self._alert_store = alert_store(self.config)
            return self._alert_store

    @cached_property
    def freshness(self) -> FeatureFreshness:
        """The freshness of the features in the online store."""
        return FeatureFreshness(self.config)

    def champions(self) -> list[Champion]:
        """The champions that serve, with their metrics by outcomes. Blocking."""
        shared_metrics, scores = shared(self.alert_store()), self.predictor.scores
        return [
            Champion(
                c.model.name,
                c.number,
                {
                    "held_out": c.metrics,
                    "outcomes": of_model(shared_metrics, c.model.name, c.number),
                    **scores.scores(c.model.name, c.number),
                },
            )
            for c in self.predictor.versions.champions()
        ]

    def alarm_figures(self) -> AlarmFigures:
        """The numbers of active alarms and of waiting messages. Blocking."""
        store = self.alert_store()
        return AlarmFigures(store.active_by_severity(), backlog.waiting(store, self.config))

    def _send_heartbeats(self, worker: Worker) -> None:
        """Writes heartbeats for `city status`: the workers, and the messages of the live city as events."""
        counted = 0
        while not worker.stop_requested.wait(1.0):
            read = self.live.messages
            self._heartbeat.count(read - counted)
            counted = read
            self._heartbeat.beat(alarm_channels=self.failing_channels)
            worker.progress()

    def _watch_platform(self, worker: Worker) -> None:
        """Raises the alarms of the platform itself, so that they need no Dagster."""
        watch = PlatformWatch(self.config, self.alert_store(), self._check_servers, self._own_metrics)
        try:
            while not worker.stop_requested.wait(_WATCH_SECONDS):
                self.failing_channels = backlog.complaints(self.alert_store().outbox.unsent(), datetime.now(UTC))
                result = watch.look()
                worker.progress(len(result.reported.raised) + len(result.reported.cleared))
        finally:
            watch.close()

    def _own_metrics(self) -> dict[str, float | None]:
        """The metrics for rules that only this process has."""
        champions = {c.model.name: c.number for c in self.predictor.versions.champions()}
        scores = self.predictor.scores.metrics(champions)
        return self.metrics.recent(time.time()) | scores | self.freshness.metrics()

    def _check_servers(self) -> dict[str, str | None]:
        """By server: why it does not answer, None where it does."""
        return {d.name: None if d.ok else d.detail for d in check_servers(self.config, self.predictor)}
