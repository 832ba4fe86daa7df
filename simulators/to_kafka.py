"""Sends a simulator's messages straight to Kafka, at its pace, until it is told to stop."""

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from confluent_kafka import Producer

from city.contracts.model import Contract
from city.streaming.heartbeat import Heartbeat
from city.streaming.topics import ensure_topics
from simulators.clock import pace

Messages = Callable[[datetime, int], Iterable[tuple[str, str, bytes]]]
"""Topic, key and message of so many events at a moment."""


def send(
    address: str,
    contracts: Sequence[Contract],
    messages: Messages,
    rate: float,
    heartbeat: Heartbeat,
    stop: threading.Event,
) -> None:
    """Until `stop`. What a Kafka that is away does not take within ten seconds is lost, as from a device."""

    def failed(error: Any) -> None:
        heartbeat.error = f"Kafka: {error.str()}"

    def delivered(error: Any, _: Any) -> None:
        if error is None:
            heartbeat.error = None
            heartbeat.count(1)

    ensure_topics(address, contracts)
    settings = {"bootstrap.servers": address, "message.timeout.ms": 10_000, "linger.ms": 20}
    producer = Producer(settings | {"compression.type": "lz4", "log_level": 0, "error_cb": failed})

    def step(now: datetime, count: int) -> None:
        for topic, key, message in messages(now, count):
            try:
                producer.produce(topic, message, key, on_delivery=delivered)
            except BufferError:
                break
        producer.poll(0)
        heartbeat.beat()

    pace(rate, stop, step)
    producer.flush(5)
