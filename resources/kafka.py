"""The Kafka resource for low-rate topics: the end offsets of a topic, and the messages of an offset range.

It uses kafka-python. The hot path has its own reader.
"""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import dagster as dg
import numpy as np

from city.settings import settings
from city.streaming.records import Offsets, RawBatch
from city.streaming.topics import MAX_MESSAGE_BYTES

_COMMITTED = "read_committed"  # the default of kafka-python also reads messages of transactions that may be aborted
_POLL_MS = 500


class KafkaResource(dg.ConfigurableResource):
    """A Kafka broker at `address` (host:port). `seconds` is the longest time without progress of a read."""

    address: str
    seconds: float = 15.0

    def ends(self, topic: str) -> Offsets:
        """Returns the next offset of each partition, or nothing if the topic does not exist.

        While a transaction is open, this is the offset at which it began, because later messages cannot be read yet.
        The markers that end transactions have an offset but no message. `read` skips them.

        Raises KafkaError if Kafka is unavailable.
        """
        consumer = self._open_consumer()
        try:
            partitions = _topic_partitions(topic, consumer.partitions_for_topic(topic) or ())
            return {tp.partition: offset for tp, offset in consumer.end_offsets(partitions).items()}
        finally:
            consumer.close()

    def read(self, topic: str, start: Offsets, end: Offsets) -> RawBatch:
        """Reads the messages of [start, end), without those of aborted transactions.

        Raises TimeoutError if there is no progress for `seconds`. Skipped messages of aborted transactions count as
        progress.
        """
        range_ends = {p: last for p, last in end.items() if start.get(p, 0) < last}
        messages: list[tuple[int, int, int, bytes | None]] = []
        consumer = self._open_consumer(
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_interval_ms=600_000,
            max_partition_fetch_bytes=MAX_MESSAGE_BYTES,
            fetch_max_bytes=MAX_MESSAGE_BYTES,
        )
        try:
            partitions = {tp: range_ends[tp.partition] for tp in _topic_partitions(topic, range_ends)}
            consumer.assign(list(partitions))
            for tp in partitions:
                consumer.seek(tp, start.get(tp.partition, 0))
            deadline, reached = time.monotonic() + self.seconds, {tp: start.get(tp.partition, 0) for tp in partitions}
            # Compares positions, not messages: the range may end with a marker or an aborted message.
            while any(reached[tp] < last for tp, last in partitions.items()):
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"topic {topic!r} did not give {start} to {end}: no progress for {self.seconds:g} s"
                    )
                for tp, records in consumer.poll(timeout_ms=_POLL_MS).items():
                    messages += [
                        (tp.partition, r.offset, r.timestamp, r.value) for r in records if r.offset < partitions[tp]
                    ]
                # A position is None if it is not known. Messages beyond the range are no progress of the range.
                position = {tp: consumer.position(tp, timeout_ms=_POLL_MS) or reached[tp] for tp in partitions}
                current = {tp: min(position[tp], last) for tp, last in partitions.items()}
                if current != reached:  # a long range may take longer, as long as there is progress
                    reached, deadline = current, time.monotonic() + self.seconds
        finally:
            consumer.close()
        partitions_, offsets, arrived, values = zip(*messages, strict=True) if messages else ((), (), (), ())
        return RawBatch(
            list(values),
            np.asarray(partitions_, np.int32),
            np.asarray(offsets, np.int64),
            np.asarray(arrived, np.int64) * 1000,
            {p: start.get(p, 0) for p in range_ends},
            range_ends,
        )

    def _open_consumer(self, **options: Any) -> Any:
        from kafka import KafkaConsumer

        # The login is not in the resource, because Dagster shows its configuration.
        kafka = replace(settings().kafka, address=self.address)
        common = {"bootstrap_timeout_ms": 3_000, "isolation_level": _COMMITTED}
        return KafkaConsumer(**kafka.python_options(), **common, **options)


def _topic_partitions(topic: str, numbers: Iterable[int]) -> list[Any]:
    from kafka import TopicPartition

    return [TopicPartition(topic, number) for number in numbers]
