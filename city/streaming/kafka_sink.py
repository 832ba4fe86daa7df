"""Events and windows to Kafka, for dashboards and for whoever else listens.

`dashboard_events` has, for each micro-batch, the newest event of each key: a map needs no older one. Each message
carries `id`, made of topic, partition and offset, so that a listener can drop what a restart repeats.
"""

from typing import Any

import polars as pl
from confluent_kafka import KafkaException, Producer

from city.contracts.model import Contract
from city.contracts.schema import LINEAGE
from city.streaming.bronze import BronzeStream
from city.streaming.records import Offsets
from city.streaming.sink import Sink, window_operators

DASHBOARD_TOPIC = "dashboard_events"
_SECONDS = 15.0


class KafkaSink(Sink):
    """Publishes with an idempotent producer; its position is recorded in bronze's next commit."""

    name = "kafka"

    def __init__(self, contract: Contract, address: str, bronze: BronzeStream) -> None:
        self._contract, self._address, self._bronze = contract, address, bronze
        self._producer: Producer | None = None
        self._failures: list[str] = []

    def open(self, recorded: Offsets) -> Offsets:
        self.close()
        self.operators = window_operators(self._contract, self._bronze)
        self._producer = Producer(
            {
                "bootstrap.servers": self._address,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "message.timeout.ms": int(_SECONDS * 1000),
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 0,
            }
        )
        return dict(recorded)

    def apply(self, rows: pl.DataFrame, start: Offsets) -> None:
        self._publish(DASHBOARD_TOPIC, dashboard_events(self._contract, rows))
        for operator in self.operators:
            changed = operator.add(rows, start)
            if operator.window.topic:
                self._publish(operator.window.topic, window_messages(operator.window.name, operator.window.by, changed))
        self._flush()

    def close(self) -> None:
        if self._producer is not None:
            self._producer.flush(2)
            self._producer = None

    def _publish(self, topic: str, messages: pl.DataFrame) -> None:
        """`messages` has the column `_key`; the others become the message."""
        assert self._producer is not None
        if messages.is_empty():
            return
        lines = messages.drop("_key").write_ndjson().encode().splitlines()
        for key, line in zip(messages["_key"].to_list(), lines, strict=True):
            self._producer.produce(topic, line, key, on_delivery=self._delivered)

    def _flush(self) -> None:
        assert self._producer is not None
        left = self._producer.flush(_SECONDS)
        failures, self._failures = self._failures, []
        if left or failures:
            reason = failures[0] if failures else f"{left} messages are still waiting after {_SECONDS:g} s"
            raise KafkaException(f"publishing: {reason}")

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failures.append(str(error))


def dashboard_events(contract: Contract, rows: pl.DataFrame) -> pl.DataFrame:
    """The newest event of each key, as messages: `kind`, `id`, the event's columns, and `_key`."""
    newest = rows.sort(contract.event_time).unique(contract.key, keep="last", maintain_order=True)
    coordinates = pl.concat_str(pl.lit(contract.topic), "_partition", "_offset", separator="-")
    named = newest.with_columns(kind=pl.lit(contract.name), id=coordinates, _key=pl.col(contract.key))
    return _iso(named.select("kind", "id", pl.exclude("kind", "id", *LINEAGE)))


def window_messages(name: str, by: str, changed: pl.DataFrame) -> pl.DataFrame:
    """Changed windows as messages; `id` is the window's key, a later message replaces an earlier one."""
    start = pl.col("window_start").dt.epoch("s").cast(pl.String)
    named = changed.with_columns(
        kind=pl.lit(name), id=pl.concat_str(pl.lit(name), start, by, separator="-"), _key=pl.col(by).cast(pl.String)
    )
    return _iso(named.select("kind", "id", pl.exclude("kind", "id")))


def _iso(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.selectors.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
