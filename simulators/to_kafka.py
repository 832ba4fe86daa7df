"""Sends simulators' messages straight to Kafka, at their pace, until they are told to stop."""

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from confluent_kafka import Producer

from city.contracts.model import Contract
from city.streaming.heartbeat import Heartbeat
from city.streaming.topics import ensure_topics
from simulators.clock import Progress, pace

Messages = Callable[[datetime, int], Iterable[tuple[str, str, bytes]]]
"""Topic, key and message of so many events at a moment."""


class Sender:
    """A producer that all simulators of the process share. Safe to call from any thread.

    What a Kafka that is away does not take within ten seconds is lost, as from a device.
    """

    def __init__(self, address: str) -> None:
        self.error: str | None = None
        """What is wrong with Kafka, until a message arrives."""
        settings = {"bootstrap.servers": address, "message.timeout.ms": 10_000, "linger.ms": 20}
        self._producer = Producer(settings | {"compression.type": "lz4", "log_level": 0, "error_cb": self._failed})

    def produce(self, topic: str, key: str, message: bytes, heartbeat: Heartbeat | None = None) -> bool:
        """Queues a message, counted by `heartbeat` once Kafka has it; False where the queue is full."""

        def delivered(error: Any, _: Any) -> None:
            if error is None:
                self.error = None
                if heartbeat is not None:
                    heartbeat.count(1)

        try:
            self._producer.produce(topic, message, key, on_delivery=delivered)
        except BufferError:
            return False
        return True

    def poll(self) -> None:
        """Calls what is due: deliveries and errors."""
        self._producer.poll(0)

    def flush(self, seconds: float) -> None:
        self._producer.flush(seconds)

    def _failed(self, error: Any) -> None:
        self.error = f"Kafka: {error.str()}"


@cache
def sender(address: str) -> Sender:
    """This process's sender to that Kafka."""
    return Sender(address)


def send(
    address: str,
    contracts: Sequence[Contract],
    messages: Messages,
    rate: float,
    heartbeat: Heartbeat,
    stop: threading.Event,
    progress: Progress,
) -> None:
    """Until `stop`. Raises KafkaException where Kafka is away at the start."""
    ensure_topics(address, contracts)
    kafka = sender(address)

    def step(now: datetime, count: int) -> None:
        queued = 0
        for topic, key, message in messages(now, count):
            if not kafka.produce(topic, key, message, heartbeat):
                break
            queued += 1
        progress(queued)
        kafka.poll()
        heartbeat.error = kafka.error
        heartbeat.beat()

    pace(rate, stop, step)
    kafka.flush(5)
