"""The data types of the hot path: batches of raw messages, batches of rows, and offsets."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl

from city.contracts.schema import TIMESTAMP

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

Offsets = dict[int, int]
"""For each partition of a topic: the next offset. Everything below it is done."""


class KafkaMessage(Protocol):
    """A message that a consumer returned. The client's own type allows None for the topic, partition and offset, which
    only a message that was never in Kafka lacks."""

    def topic(self) -> str:
        """Returns the topic's name."""
        ...

    def partition(self) -> int:
        """Returns the number of the partition."""
        ...

    def offset(self) -> int:
        """Returns the offset within the partition."""
        ...

    def value(self) -> bytes | None:
        """Returns the content; None for a tombstone."""
        ...

    def timestamp(self) -> tuple[int, int]:
        """Returns the kind of the timestamp, and the timestamp in milliseconds since the epoch."""
        ...

    def error(self) -> "KafkaError | None":
        """Returns the error that stands in place of a message; None for a message."""
        ...


@dataclass(frozen=True)
class RawBatch:
    """A batch of messages as Kafka returned them, in the order of their offsets within a partition.

    `arrived` is Kafka's own time of arrival in microseconds since the epoch. `start` and `end` are the offset range
    [start, end) of each partition that the batch covers. `polled` is the time of the read (time.monotonic()).
    """

    values: list[bytes | None]
    partitions: np.ndarray
    offsets: np.ndarray
    arrived: np.ndarray
    start: Offsets
    end: Offsets
    polled: float = field(default_factory=time.monotonic)

    def __len__(self) -> int:
        return len(self.values)

    def coordinates(self) -> pl.DataFrame:
        """Returns one row a message: `_partition`, `_offset`, `_arrived`."""
        return pl.DataFrame(
            {"_partition": self.partitions, "_offset": self.offsets, "_arrived": self.arrived},
            schema_overrides={"_partition": pl.Int32, "_offset": pl.Int64},
        ).with_columns(pl.col("_arrived").cast(pl.Int64).cast(TIMESTAMP))


@dataclass(frozen=True)
class Batch:
    """A batch of valid rows (the contract's bronze schema) of the offset ranges [start, end).

    `polled` is the time at which its messages were read from Kafka (time.monotonic()); None for a batch that is read
    back from bronze.
    """

    rows: pl.DataFrame
    start: Offsets
    end: Offsets
    polled: float | None = None

    def rows_after(self, position: Offsets) -> pl.DataFrame:
        """Returns the rows that a sink at `position` has not applied yet."""
        if all(position.get(p, 0) <= first for p, first in self.start.items()):
            return self.rows
        return self.rows.filter(from_position(position))


def from_position(position: Offsets, partition: str = "_partition", offset: str = "_offset") -> pl.Expr:
    """Builds the filter for rows at or after `position`. A partition that it does not name is at 0."""
    conditions = [(pl.col(partition) != p) | (pl.col(offset) >= first) for p, first in position.items()]
    return pl.all_horizontal(conditions) if conditions else pl.lit(True)


def below_position(position: Offsets) -> pl.Expr:
    """Builds the filter for rows below `position`. It matches no row of a partition that `position` does not name."""
    conditions = [(pl.col("_partition") == p) & (pl.col("_offset") < offset) for p, offset in position.items()]
    return pl.any_horizontal(conditions) if conditions else pl.lit(False)


def is_behind(position: Offsets, target: Offsets) -> bool:
    """Returns whether `position` has not reached `target` in some partition."""
    return any(position.get(partition, 0) < offset for partition, offset in target.items())
