"""Kafka for what is low-rate: where a topic ends, and a range of it. kafka-python; the hot path has its own reader."""

import time

import dagster as dg
import numpy as np

from city.streaming.records import Offsets, RawBatch


class KafkaResource(dg.ConfigurableResource):
    """A Kafka at `address` (host:port)."""

    address: str
    seconds: float = 15.0

    def ends(self, topic: str) -> Offsets:
        """The next offset of each partition; nothing where there is no such topic. Raises KafkaError when away."""
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=self.address, bootstrap_timeout_ms=3_000)
        try:
            partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
            return {tp.partition: offset for tp, offset in consumer.end_offsets(partitions).items()}
        finally:
            consumer.close()

    def read(self, topic: str, start: Offsets, end: Offsets) -> RawBatch:
        """The messages of [start, end). Raises TimeoutError when they do not come within `seconds`."""
        from kafka import KafkaConsumer, TopicPartition

        wanted = {p: last for p, last in end.items() if start.get(p, 0) < last}
        found: list[tuple[int, int, int, bytes | None]] = []
        consumer = KafkaConsumer(
            bootstrap_servers=self.address,
            bootstrap_timeout_ms=3_000,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_interval_ms=600_000,
            max_partition_fetch_bytes=20_971_520,
            fetch_max_bytes=20_971_520,
        )
        try:
            consumer.assign([TopicPartition(topic, p) for p in wanted])
            for p in wanted:
                consumer.seek(TopicPartition(topic, p), start.get(p, 0))
            deadline = time.monotonic() + self.seconds
            while any(consumer.position(TopicPartition(topic, p)) < last for p, last in wanted.items()):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"topic {topic!r} did not give {start} to {end} within {self.seconds:g} s")
                for tp, records in consumer.poll(timeout_ms=500).items():
                    found += [
                        (tp.partition, r.offset, r.timestamp, r.value)
                        for r in records
                        if r.offset < wanted[tp.partition]
                    ]
        finally:
            consumer.close()
        partitions, offsets, arrived, values = zip(*found, strict=True) if found else ((), (), (), ())
        return RawBatch(
            list(values),
            np.asarray(partitions, np.int32),
            np.asarray(offsets, np.int64),
            np.asarray(arrived, np.int64) * 1000,
            {p: start.get(p, 0) for p in wanted},
            wanted,
        )
