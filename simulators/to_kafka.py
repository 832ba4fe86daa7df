"""Sends the messages of simulators to Kafka at their pace."""

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from confluent_kafka import Producer

from city.contracts.model import Contract
from city.kafka import KafkaServer
from city.streaming.heartbeat import Heartbeat
from city.streaming.topics import ensure_topics
from simulators.clock import Progress, pace

Messages = Callable[[datetime, int], Iterable[tuple[str, str, bytes]]]
"""A function of a moment and a number of events that returns their (topic, key, message)."""


class Sender:
    """A Kafka producer that all simulators of the process share. It can be called from any thread.

    A message that Kafka does not take within ten seconds is lost, as with a real device.
    """

    def __init__(self, kafka: KafkaServer) -> None:
        self.error: str | None = None
        """The last error of Kafka, or None once a message has arrived since."""
        options = {"message.timeout.ms": 10_000, "linger.ms": 20, "compression.type": "lz4"}
        self._producer = Producer(kafka.options(options | {"error_cb": self._record_error}))

    def produce(self, topic: str, key: str, message: bytes, heartbeat: Heartbeat | None = None) -> bool:
        """Queues a message. Returns False if the queue is full.

        `heartbeat` counts the message once Kafka has it.
        """

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
        """Runs the callbacks that are due, for deliveries and errors."""
        self._producer.poll(0)

    def flush(self, seconds: float) -> None:
        """Waits until all messages are delivered, for at most `seconds`."""
        self._producer.flush(seconds)

    def _record_error(self, error: Any) -> None:
        self.error = f"Kafka: {error.str()}"


@cache
def sender(kafka: KafkaServer) -> Sender:
    """Returns this process's sender to a Kafka."""
    return Sender(kafka)


def send(
    server: KafkaServer,
    contracts: Sequence[Contract],
    messages: Messages,
    rate: float,
    heartbeat: Heartbeat,
    stop: threading.Event,
    progress: Progress,
) -> None:
    """Sends `messages` at `rate` events a second until `stop` is set.

    Raises KafkaException if Kafka is unavailable at the start.
    """
    ensure_topics(server, contracts)
    kafka = sender(server)

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
