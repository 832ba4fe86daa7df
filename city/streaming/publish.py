"""Publishes the rows of frames as Kafka messages."""

import polars as pl
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from city.kafka import KafkaServer

_SECONDS = 15.0


def event_id(topic: str) -> pl.Expr:
    """Builds the id by which a listener drops repeated messages: topic, partition and offset.

    The rows have `_partition` and `_offset`.
    """
    return pl.concat_str(pl.lit(topic), "_partition", "_offset", separator="-")


class Publisher:
    """Publishes with an idempotent producer. A message that was not delivered makes the next `flush` fail."""

    def __init__(self, kafka: KafkaServer) -> None:
        self._failures: list[str] = []
        self._producer = Producer(
            kafka.options(
                {
                    "enable.idempotence": True,
                    "compression.type": "lz4",
                    "linger.ms": 5,
                    "message.timeout.ms": int(_SECONDS * 1000),
                    "queue.buffering.max.messages": 1_000_000,
                }
            )
        )

    def publish(self, topic: str, messages: pl.DataFrame) -> None:
        """Sends each row as a message. `_key` is the message key; the other columns become JSON, times as ISO 8601."""
        if messages.is_empty():
            return
        named = messages.drop("_key").with_columns(pl.selectors.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
        lines = named.write_ndjson().encode().splitlines()
        for key, line in zip(messages["_key"].to_list(), lines, strict=True):
            self._producer.produce(topic, line, key, on_delivery=self._on_delivery)

    def flush(self) -> None:
        """Waits until all messages are delivered. Raises KafkaException where one was not."""
        undelivered = self._producer.flush(_SECONDS)
        failures, self._failures = self._failures, []
        if undelivered or failures:
            reason = failures[0] if failures else f"{undelivered} messages are still waiting after {_SECONDS:g} s"
            raise KafkaException(f"publishing: {reason}")

    def close(self) -> None:
        """Waits up to two seconds for messages that are still on their way."""
        self._producer.flush(2)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(str(error))
