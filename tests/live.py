"""What tests do with the running servers: send, stream, wait, look."""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import polars as pl
from confluent_kafka import Consumer, Producer, TopicPartition

from city.contracts.model import Contract
from city.lake import bronze_path
from city.settings import Settings
from city.stack.part import Part
from city.streaming.job import SINKS, StreamJob
from city.streaming.topics import ensure_topics
from tests.events import iso, position


def until(holds: Callable[[], Any], seconds: float = 40) -> Any:
    """Waits for it; its value. Fails when it does not come."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(Exception):
            if value := holds():
                return value
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


@contextlib.contextmanager
def streaming(contract: Contract, stack: Settings, sinks: Any = SINKS) -> Iterator[StreamJob]:
    job = StreamJob([contract], stack, sinks)
    failure: list[BaseException] = []

    def run() -> None:
        try:
            job.run()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(daemon=True, target=run)
    thread.start()
    try:
        yield job
    finally:
        job.stop.set()
        thread.join(40)
        assert not thread.is_alive()


def send(stack: Settings, contract: Contract, *messages: bytes) -> None:
    ensure_topics(stack.kafka, [contract])
    producer = Producer({"bootstrap.servers": str(stack.kafka), "message.max.bytes": 15_000_000})
    for number, message in enumerate(messages):
        producer.produce(contract.topic, message, str(number))
    assert producer.flush(20) == 0


def fresh(count: int, first: int = 0) -> list[bytes]:
    """Valid messages of now, no two of the same time and vehicle."""
    now = datetime.now(UTC)
    return [
        json.dumps(position(vehicle_id=f"v{n}", trip_id=f"t{n}", timestamp=iso(now))).encode()
        for n in range(first, first + count)
    ]


def trips_in_bronze(stack: Settings, contract: Contract) -> list[str]:
    return pl.read_delta(str(bronze_path(stack.lake, contract)))["trip_id"].sort().to_list()


def consume(stack: Settings, topic: str) -> list[dict[str, Any]]:
    consumer = Consumer({"bootstrap.servers": str(stack.kafka), "group.id": uuid.uuid4().hex})
    partitions = [TopicPartition(topic, p, 0) for p in consumer.list_topics(topic).topics[topic].partitions]
    ends = {p.partition: consumer.get_watermark_offsets(p)[1] for p in partitions}
    consumer.assign(partitions)
    raw: list[bytes] = []
    while len(raw) < sum(ends.values()):
        raw += [message.value() or b"" for message in consumer.consume(100, 0.5)]
    alarms: list[dict[str, Any]] = []
    for value in raw:
        with contextlib.suppress(ValueError):  # other tests send broken messages to the topics of real domains
            alarms.append(json.loads(value))
    consumer.close()
    return alarms


def kill(server: Part) -> None:
    """SIGKILL to the server's process, as the kernel would send it."""
    assert server._process is not None
    server._process.kill()


def restarted(server: Part) -> Part:
    """The supervisor's part in it: notices that the server is gone, and starts it again."""
    until(lambda: server.watch() or server.state == "restarting")
    return server
