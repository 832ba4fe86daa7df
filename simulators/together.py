"""Runs several simulators in one process, each in a worker that restarts it when it fails."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from city.settings import Settings
from city.stack.worker import Worker, complaints
from city.streaming.heartbeat import Heartbeat
from simulators.clock import Progress
from simulators.world.street_store import load_streets

NAME = "simulators"
_BEAT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0


class Simulator(Protocol):
    """The simulator of a domain. `run` reports its progress at each step, and returns once `stop` is set."""

    def run(self, stop: threading.Event, progress: Progress) -> None:
        """Simulates events until `stop` is set."""
        ...


def run(makers: Mapping[str, Callable[[], Simulator]], config: Settings, stop: threading.Event) -> None:
    """Runs the simulators of all domains until `stop` is set.

    `makers` builds the simulator of each domain. A simulator that fails is built again after a wait, while the others
    go on.
    """
    workers = [_build_worker(domain, make, stop).start() for domain, make in makers.items()]
    heartbeat, counted = Heartbeat(config, NAME), 0
    while not stop.wait(_BEAT_SECONDS):
        total = sum(worker.items for worker in workers)
        heartbeat.count(total - counted)
        counted = total
        failing = complaints([worker.summary() for worker in workers], time.time())
        heartbeat.error = "; ".join(f"{name}: {text}" for name, text in failing.items()) or None
        heartbeat.beat()
    for worker in workers:
        worker.join(10)


def prepare(config: Settings, stop: threading.Event) -> None:
    """Loads the city's streets while Kafka starts. Returns once Kafka is there, after half a minute at most."""
    load_streets(config)
    ends = time.monotonic() + _LONGEST_WAIT_SECONDS
    while time.monotonic() < ends and not stop.is_set():
        if config.kafka.complaint() is None:
            return
        stop.wait(0.1)


def _build_worker(domain: str, make: Callable[[], Simulator], stop: threading.Event) -> Worker:
    def body(worker: Worker) -> None:
        make().run(worker.stop_requested, worker.progress)

    return Worker(f"simulator-{domain}", body, stop=stop)
