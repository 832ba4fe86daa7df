"""Vehicle positions for benchmarks: many, fast, and each with a number in its trip."""

import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from confluent_kafka import Producer

from city.kafka import KafkaServer
from city_assets.traffic.contract import VEHICLE_POSITIONS

VEHICLES = 5_000
_BROKEN = (
    lambda m: m[: len(m) // 2],
    lambda m: m.replace(b'"speed":', b'"sped":'),
    lambda m: m.replace(b'"speed":', b'"speed":999'),
    lambda m: m.replace(b'"latitude":', b'"latitude":"north",'),
)


def messages(
    count: int, broken_in: int = 0, first: int = 0, seed: int = 0, stamp_every: int = 100
) -> Iterator[tuple[bytes, bytes, bool]]:
    """(key, message, is valid); one in `broken_in` is broken in one of several ways, none where that is 0.

    The time is read for every `stamp_every`th message: for each where times must differ.
    """
    chance = random.Random(seed)
    stamp, at = b"", 0.0
    for number in range(first, first + count):
        if number % stamp_every == 0 or time.time() - at > 0.001:
            at = time.time()
            stamp = datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z").encode()
        vehicle = b"taxi_%05d" % chance.randrange(VEHICLES)
        message = (
            b'{"vehicle_id":"%s","timestamp":"%s","latitude":%.6f,"longitude":%.6f,"speed":%.2f,"trip_id":"trip_%08d"}'
            % (
                vehicle,
                stamp,
                40.70 + chance.random() / 10,
                -74.02 + chance.random() / 10,
                chance.random() * 60,
                number,
            )
        )
        broken = bool(broken_in) and chance.randrange(broken_in) == 0
        if broken:
            message = _BROKEN[chance.randrange(len(_BROKEN))](message)
        yield vehicle, message, not broken


def produce(
    kafka: KafkaServer, generated: Iterator[tuple[bytes, bytes, bool]], done: Callable[[int], None] = lambda n: None
) -> tuple[int, int]:
    """Sends messages; (valid, broken) as counted. Raises RuntimeError where Kafka did not take all."""
    producer = Producer(kafka.options({"linger.ms": 20, "queue.buffering.max.messages": 500_000}))
    valid = broken = 0
    for key, message, is_valid in generated:
        while True:
            try:
                producer.produce(VEHICLE_POSITIONS.topic, message, key)
                break
            except BufferError:
                producer.poll(0.05)
        valid, broken = valid + is_valid, broken + (not is_valid)
        if (valid + broken) % 10_000 == 0:
            producer.poll(0)
            done(valid + broken)
    if producer.flush(60):
        raise RuntimeError("Kafka did not take every message within a minute")
    return valid, broken
