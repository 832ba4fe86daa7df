"""What the routes work with, opened and closed with the server."""

import asyncio
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property

from sqlalchemy.exc import SQLAlchemyError

from city.alerts import backlog
from city.alerts.conditions import Condition
from city.alerts.dispatch import deliver
from city.alerts.reader import AlarmReader
from city.alerts.store import AlertStore, alert_store
from city.alerts.watch import Watch, shared
from city.features.freshness import FeatureFreshness
from city.live.hub import Hub
from city.live.layers import Layer, feeds
from city.live.reader import Delta, Live
from city.models.model import Model
from city.models.performance import of_model
from city.server.health import servers
from city.serving.predictor import Predictor
from city.settings import Settings
from city.stack.worker import Worker
from city.streaming.heartbeat import Heartbeat
from city.web.keys import Keys, Tokens
from city.web.metrics import AlarmFigures, Champion, Metrics

SERVER = "server"
_WATCH_SECONDS, _TELL_SECONDS = 2.0, 1.0
_SWITCH_SECONDS = 0.001
"""Threads that write and load must not hold up a request for Python's five milliseconds."""


class City:
    def __init__(
        self,
        config: Settings,
        declared: Mapping[str, Model],
        layers: Sequence[Layer],
        conditions: Sequence[Condition] = (),
    ) -> None:
        self.config = config
        self.began = time.time()
        self.keys = Keys(config)
        self.tokens = Tokens(config, self.keys)
        self.metrics = Metrics(config)
        self.predictor = Predictor(config, declared, self.metrics)
        self.live = Live(config, layers, feeds(declared), declared, self.predictor.versions)
        self.hub = Hub(self.live.snapshot, self.metrics)
        self._alert_store: AlertStore | None = None
        self._alert_store_lock = threading.Lock()
        self.alarms = AlarmReader(config, conditions, self.alert_store)
        self._heartbeat = Heartbeat(config, SERVER)
        self._beating = Worker("heartbeat", self._beat)
        away = (OSError, SQLAlchemyError)
        self._watching = Worker("platform alarms", self._watch, expected=away)
        # A server that is slow is waited for: for each channel at most so long as its messages are leased.
        self._telling = Worker("alarm messages", self._tell, expected=away, stall_seconds=float("inf"))
        self.away_channels: dict[str, str] = {}
        """The channels that do not take the messages of alarms, with the reason, as of the last look."""

    async def start(self) -> None:
        sys.setswitchinterval(_SWITCH_SECONDS)
        await self.predictor.start()
        loop = asyncio.get_running_loop()

        def publish(delta: Delta) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.hub.publish, delta)

        self.live.start(publish)
        self.alarms.start()
        self._beating.start()
        self._watching.start()
        self._telling.start()

    async def stop(self) -> None:
        await asyncio.to_thread(self._watching.stop)
        await asyncio.to_thread(self._telling.stop)
        await asyncio.to_thread(self._beating.stop)
        await asyncio.to_thread(self.alarms.stop)
        await asyncio.to_thread(self.live.stop)
        await self.predictor.stop()

    def _tell(self, worker: Worker) -> None:
        """Messages of alarms: a channel that is slow holds up no look at the platform."""
        while not worker.stop_requested.wait(_TELL_SECONDS):
            worker.progress(deliver(self.alert_store(), self.config).sent)

    def alert_store(self) -> AlertStore:
        """The alarm store of all that this server does, opened when it is first wanted. Blocking. Raises OSError or
        SQLAlchemyError where its store is away."""
        with self._alert_store_lock:
            if self._alert_store is None:
                self._alert_store = alert_store(self.config)
            return self._alert_store

    @cached_property
    def freshness(self) -> FeatureFreshness:
        return FeatureFreshness(self.config)

    def champions(self) -> list[Champion]:
        """Those that serve, with what outcomes have said of them. Blocking."""
        told, scores = shared(self.alert_store()), self.predictor.scores
        return [
            Champion(
                c.model.name,
                c.number,
                {
                    "held_out": c.metrics,
                    "outcomes": of_model(told, c.model.name, c.number),
                    **scores.scores(c.model.name, c.number),
                },
            )
            for c in self.predictor.versions.champions()
        ]

    def alarm_figures(self) -> AlarmFigures:
        """Blocking."""
        known = self.alert_store()
        return AlarmFigures(known.active_by_severity(), backlog.waiting(known, self.config))

    def _beat(self, worker: Worker) -> None:
        """For `city status`: the workers, and the messages of the live city as the server's events."""
        counted = 0
        while not worker.stop_requested.wait(1.0):
            read = self.live.messages
            self._heartbeat.count(read - counted)
            counted = read
            self._heartbeat.beat(alarm_channels=self.away_channels)
            worker.progress()

    def _watch(self, worker: Worker) -> None:
        """Alarms of the platform itself, which are raised and told without Dagster too."""
        watch = Watch(self.config, self.alert_store(), self._unavailable, self._own_metrics)
        try:
            while not worker.stop_requested.wait(_WATCH_SECONDS):
                self.away_channels = backlog.complaints(self.alert_store().outbox.unsent(), datetime.now(UTC))
                found = watch.look()
                worker.progress(len(found.reported.raised) + len(found.reported.cleared))
        finally:
            watch.close()

    def _own_metrics(self) -> dict[str, float | None]:
        """What rules can be about and this process knows."""
        champions = {c.model.name: c.number for c in self.predictor.versions.champions()}
        scores = self.predictor.scores.metrics(champions)
        return self.metrics.recent(time.time()) | scores | self.freshness.metrics()

    def _unavailable(self) -> dict[str, str | None]:
        return {d.name: None if d.ok else d.detail for d in servers(self.config, self.predictor)}
