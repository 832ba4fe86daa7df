"""Publishes events and windows to Kafka, for dashboards and other listeners.

The topic `dashboard_events` gets the newest event of each key of a micro-batch, because a map needs no older one. Each
message carries `id`, made of topic, partition and offset, so a listener can drop the messages that a restart repeats.
"""

import polars as pl

from city.contracts.model import Contract
from city.contracts.schema import LINEAGE
from city.kafka import KafkaServer
from city.streaming.publish import Publisher, event_id
from city.streaming.records import Offsets
from city.streaming.sinks.base import Sink
from city.streaming.topics import DASHBOARD_TOPIC
from city.streaming.windows import Changed


class KafkaSink(Sink):
    """Publishes with an idempotent producer. Bronze's next commit records its position."""

    name = "kafka"
    recorded = True

    def __init__(self, contract: Contract, kafka: KafkaServer) -> None:
        self._contract, self._kafka = contract, kafka
        self._publisher: Publisher | None = None

    def open(self, recorded: Offsets) -> Offsets:
        """Connects the producer. Returns the recorded position."""
        self.close()
        self._publisher = Publisher(self._kafka)
        return dict(recorded)

    def apply(self, rows: pl.DataFrame, start: Offsets, changed: Changed) -> None:
        """Publishes the newest events and the changed windows. Raises KafkaException where Kafka did not take one."""
        assert self._publisher is not None
        self._publisher.publish(DASHBOARD_TOPIC, dashboard_events(self._contract, rows))
        for window in self._contract.windows:
            if window.topic:
                messages = window_messages(window.name, window.by, changed()[window.name])
                self._publisher.publish(window.topic, messages)
        self._publisher.flush()

    def close(self) -> None:
        """Closes the producer."""
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None


def dashboard_events(contract: Contract, rows: pl.DataFrame) -> pl.DataFrame:
    """Returns the newest event of each key, as messages: `kind`, `id`, the event's columns, and `_key`."""
    newest = rows.sort(contract.event_time).unique(contract.key, keep="last", maintain_order=True)
    named = newest.with_columns(kind=pl.lit(contract.name), id=event_id(contract.topic), _key=pl.col(contract.key))
    return named.select("kind", "id", pl.exclude("kind", "id", *LINEAGE))


def window_messages(name: str, by: str, changed: pl.DataFrame) -> pl.DataFrame:
    """Returns changed windows as messages. `id` is the window's key: a later message replaces an earlier one."""
    start = pl.col("window_start").dt.epoch("s").cast(pl.String)
    named = changed.with_columns(
        kind=pl.lit(name), id=pl.concat_str(pl.lit(name), start, by, separator="-"), _key=pl.col(by).cast(pl.String)
    )
    return named.select("kind", "id", pl.exclude("kind", "id"))
