"""Kafka for what is low-rate: where a topic ends, and a range of it. kafka-python; the hot path has its own reader."""

import time
from collections.abc import Iterable
from typing import Any

import dagster as dg
import numpy as np

from city.streaming.records import Offsets, RawBatch
from city.streaming.topics import MAX_MESSAGE_BYTES

_COMMITTED = "read_committed"  # kafka-python's default is to read what a transaction may yet take back
_POLL_MS = 500


class KafkaResource(dg.ConfigurableResource):
    """A Kafka at `address` (host:port)."""

    address: str
    seconds: float = 15.0

    def ends(self, topic: str) -> Offsets:
        """The next offset of each partition; nothing where there is no such topic. Raises KafkaError when away.

        While a transaction is open it is the offset that the transaction began at: nothing beyond can be read yet. The
        markers at which transactions end have offsets too, and no message; `read` goes past them.
        """
        consumer = self._consumer()
        try:
            partitions = _partitions(topic, consumer.partitions_for_topic(topic) or ())
            return {tp.partition: offset for tp, offset in consumer.end_offsets(partitions).items()}
        finally:
            consumer.close()

    def read(self, topic: str, start: Offsets, end: Offsets) -> RawBatch:
        """The messages of [start, end), without those of aborted transactions. Raises TimeoutError when Kafka
        gets no further for `seconds`: a long range of aborted messages is progress too."""
        wanted = {p: last for p, last in end.items() if start.get(p, 0) < last}
        found: list[tuple[int, int, int, bytes | None]] = []
        consumer = self._consumer(
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_interval_ms=600_000,
            max_partition_fetch_bytes=MAX_MESSAGE_BYTES,
            fetch_max_bytes=MAX_MESSAGE_BYTES,
        )
        try:
            partitions = {tp: wanted[tp.partition] for tp in _partitions(topic, wanted)}
            consumer.assign(list(partitions))
            for tp in partitions:
                consumer.seek(tp, start.get(tp.partition, 0))
            deadline, reached = time.monotonic() + self.seconds, {tp: start.get(tp.partition, 0) for tp in partitions}
            # Of the position, not of the messages: what ends the range may be a marker or a message that was aborted.
            while any(reached[tp] < last for tp, last in partitions.items()):
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"topic {topic!r} did not give {start} to {end}: no progress for {self.seconds:g} s"
                    )
                for tp, records in consumer.poll(timeout_ms=_POLL_MS).items():
                    found += [
                        (tp.partition, r.offset, r.timestamp, r.value) for r in records if r.offset < partitions[tp]
                    ]
                # None where the position is not known. What a partition has beyond the range is no progress of it.
                position = {tp: consumer.position(tp, timeout_ms=_POLL_MS) or reached[tp] for tp in partitions}
                now_at = {tp: min(position[tp], last) for tp, last in partitions.items()}
                if now_at != reached:  # a long range may take longer, as long as it comes
                    reached, deadline = now_at, time.monotonic() + self.seconds
        finally:
            consumer.close()
        partitions_, offsets, arrived, values = zip(*found, strict=True) if found else ((), (), (), ())
        return RawBatch(
            list(values),
            np.asarray(partitions_, np.int32),
            np.asarray(offsets, np.int64),
            np.asarray(arrived, np.int64) * 1000,
            {p: start.get(p, 0) for p in wanted},
            wanted,
        )

    def _consumer(self, **more: Any) -> Any:
        from kafka import KafkaConsumer

        return KafkaConsumer(
            bootstrap_servers=self.address, bootstrap_timeout_ms=3_000, isolation_level=_COMMITTED, **more
        )


def _partitions(topic: str, numbers: Iterable[int]) -> list[Any]:
    from kafka import TopicPartition

    return [TopicPartition(topic, number) for number in numbers]
