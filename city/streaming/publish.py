"""Messages to Kafka, from frames."""

from typing import Any

import polars as pl
from confluent_kafka import KafkaException, Producer

_SECONDS = 15.0


def event_id(topic: str) -> pl.Expr:
    """What a listener drops repeats by: topic, partition and offset, of rows with `_partition` and `_offset`."""
    return pl.concat_str(pl.lit(topic), "_partition", "_offset", separator="-")


class Publisher:
    """An idempotent producer. What was not delivered makes the next `flush` fail."""

    def __init__(self, address: str) -> None:
        self._failures: list[str] = []
        self._producer = Producer(
            {
                "bootstrap.servers": address,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "message.timeout.ms": int(_SECONDS * 1000),
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 0,
            }
        )

    def publish(self, topic: str, messages: pl.DataFrame) -> None:
        """Each row is a message; its key is in `_key`, the other columns become JSON, times as ISO 8601."""
        if messages.is_empty():
            return
        named = messages.drop("_key").with_columns(pl.selectors.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
        lines = named.write_ndjson().encode().splitlines()
        for key, line in zip(messages["_key"].to_list(), lines, strict=True):
            self._producer.produce(topic, line, key, on_delivery=self._delivered)

    def flush(self) -> None:
        """Waits until all is delivered. Raises KafkaException where something was not."""
        left = self._producer.flush(_SECONDS)
        failures, self._failures = self._failures, []
        if left or failures:
            reason = failures[0] if failures else f"{left} messages are still waiting after {_SECONDS:g} s"
            raise KafkaException(f"publishing: {reason}")

    def close(self) -> None:
        self._producer.flush(2)

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failures.append(str(error))
