"""Events and windows to Kafka, for dashboards and for whoever else listens.

`dashboard_events` has, for each micro-batch, the newest event of each key: a map needs no older one. Each message
carries `id`, made of topic, partition and offset, so that a listener can drop what a restart repeats.
"""

import polars as pl

from city.contracts.model import Contract
from city.contracts.schema import LINEAGE
from city.streaming.publish import Publisher, event_id
from city.streaming.records import Offsets
from city.streaming.sinks.base import Sink
from city.streaming.topics import DASHBOARD_TOPIC
from city.streaming.windows import Changed


class KafkaSink(Sink):
    """Publishes with an idempotent producer; its position is recorded in bronze's next commit."""

    name = "kafka"
    recorded = True

    def __init__(self, contract: Contract, address: str) -> None:
        self._contract, self._address = contract, address
        self._publisher: Publisher | None = None

    def open(self, recorded: Offsets) -> Offsets:
        self.close()
        self._publisher = Publisher(self._address)
        return dict(recorded)

    def apply(self, rows: pl.DataFrame, start: Offsets, changed: Changed) -> None:
        assert self._publisher is not None
        self._publisher.publish(DASHBOARD_TOPIC, dashboard_events(self._contract, rows))
        for window in self._contract.windows:
            if window.topic:
                messages = window_messages(window.name, window.by, changed()[window.name])
                self._publisher.publish(window.topic, messages)
        self._publisher.flush()

    def close(self) -> None:
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None


def dashboard_events(contract: Contract, rows: pl.DataFrame) -> pl.DataFrame:
    """The newest event of each key, as messages: `kind`, `id`, the event's columns, and `_key`."""
    newest = rows.sort(contract.event_time).unique(contract.key, keep="last", maintain_order=True)
    named = newest.with_columns(kind=pl.lit(contract.name), id=event_id(contract.topic), _key=pl.col(contract.key))
    return named.select("kind", "id", pl.exclude("kind", "id", *LINEAGE))


def window_messages(name: str, by: str, changed: pl.DataFrame) -> pl.DataFrame:
    """Changed windows as messages; `id` is the window's key, a later message replaces an earlier one."""
    start = pl.col("window_start").dt.epoch("s").cast(pl.String)
    named = changed.with_columns(
        kind=pl.lit(name), id=pl.concat_str(pl.lit(name), start, by, separator="-"), _key=pl.col(by).cast(pl.String)
    )
    return named.select("kind", "id", pl.exclude("kind", "id"))
