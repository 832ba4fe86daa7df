import threading
import time
import uuid
from dataclasses import replace
from types import SimpleNamespace

import polars as pl
import pytest
from confluent_kafka import Producer
from kafka import TopicPartition

from city import questdb
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.decode import decode
from city.streaming.records import Batch, Offsets, is_behind
from city.streaming.topics import ensure_topics
from city_assets.environment.contract import DEVICES
from resources.kafka import KafkaResource
from resources.questdb import QuestDBResource
from tests.live import until


def test_a_range_of_a_topic_is_read_exactly(stack: Settings) -> None:
    topic = uuid.uuid4().hex
    kafka = KafkaResource(address=str(stack.kafka))
    assert kafka.ends(topic) == {}
    ensure_topics(stack.kafka, [replace(DEVICES, topic=topic, partitions=2)])
    producer = Producer({"bootstrap.servers": str(stack.kafka)})
    for number in range(20):
        producer.produce(topic, str(number).encode(), partition=number % 2)
    producer.flush(10)
    assert kafka.ends(topic) == {0: 10, 1: 10}
    messages = kafka.read(topic, {0: 3, 1: 9}, {0: 5, 1: 10})
    assert sorted(zip(messages.partitions.tolist(), messages.offsets.tolist(), messages.values, strict=True)) == [
        (0, 3, b"6"),
        (0, 4, b"8"),
        (1, 9, b"19"),
    ]
    assert (messages.start, messages.end) == ({0: 3, 1: 9}, {0: 5, 1: 10})
    assert kafka.read(topic, {0: 5}, {0: 5}).values == []
    with pytest.raises(TimeoutError, match="did not give"):
        KafkaResource(address=str(stack.kafka), seconds=1).read(topic, {0: 0}, {0: 99})


def test_a_transaction_that_was_aborted_is_not_read_and_markers_leave_no_lag(stack: Settings) -> None:
    """Three messages aborted, three committed, then three aborted: the range ends in what has no message."""
    contract = replace(DEVICES, name=f"t{uuid.uuid4().hex[:8]}", topic=uuid.uuid4().hex, partitions=1)
    ensure_topics(stack.kafka, [contract])
    kafka = KafkaResource(address=str(stack.kafka), seconds=10)
    producer = Producer({"bootstrap.servers": str(stack.kafka), "transactional.id": contract.topic})
    producer.init_transactions(20)

    def transaction(name: str, commit: bool) -> None:
        producer.begin_transaction()
        for number in range(3):
            producer.produce(contract.topic, f"{name} {number}".encode())
        producer.flush(10)
        if commit:
            producer.commit_transaction(20)
        else:
            producer.abort_transaction(20)

    transaction("aborted", commit=False)
    transaction("committed", commit=True)
    transaction("aborted again", commit=False)
    end = until(lambda: (ends := kafka.ends(contract.topic)) == {0: 12} and ends)  # nine messages, three markers
    for begin in (0, 3, 5, 8, 11):  # also from within, and from a marker
        expected = [f"committed {n}".encode() for n in range(3) if 4 + n >= begin]
        began = time.monotonic()
        batch = kafka.read(contract.topic, {0: begin}, end)
        assert time.monotonic() - began < kafka.seconds / 2  # it does not wait for what will never come
        assert (batch.values, batch.end) == (expected, end)
    bronze = BronzeStream(stack.lake, contract)
    bronze.load([0])
    batch = kafka.read(contract.topic, {}, end)
    rows, rejects = decode(contract, batch, {})
    bronze.commit(Batch(rows, batch.start, batch.end), rejects, {}, threading.Event(), lambda reason: None)
    assert rejects.height == 3
    assert not is_behind(BronzeStream(stack.lake, contract).load([0]), kafka.ends(contract.topic))
    producer.begin_transaction()
    producer.produce(contract.topic, b"open")
    producer.flush(10)
    assert kafka.ends(contract.topic) == end  # what is open cannot be read yet, and is not waited for
    producer.abort_transaction(20)


class ScriptedConsumer:
    """Each poll takes a tenth of a second and brings the partitions as far as the script says: the next offset of each,
    and whether there are messages up to it (those of aborted transactions are not given)."""

    def __init__(self, *script: dict[int, tuple[int, bool]]) -> None:
        self._script, self.closed = list(script), False
        self._positions: dict[TopicPartition, int] = {}

    def assign(self, partitions: list[TopicPartition]) -> None: ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset

    def position(self, partition: TopicPartition, timeout_ms: int | None = None) -> int:
        return self._positions[partition]

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[SimpleNamespace]]:
        time.sleep(0.1)
        records = {}
        for tp in self._positions:
            upto, given = (self._script[0] if self._script else {}).get(tp.partition, (0, False))
            if given:
                offsets = range(self._positions[tp], upto)
                records[tp] = [SimpleNamespace(offset=n, timestamp=0, value=b"%d" % n) for n in offsets]
            self._positions[tp] = max(upto, self._positions[tp])
        del self._script[:1]
        return records

    def close(self) -> None:
        self.closed = True


def read_scripted(
    monkeypatch: pytest.MonkeyPatch, script: list[dict[int, tuple[int, bool]]], end: Offsets
) -> list[bytes | None]:
    consumer = ScriptedConsumer(*script)
    monkeypatch.setattr(KafkaResource, "_open_consumer", lambda self, **options: consumer)
    try:
        return KafkaResource(address="nowhere:1", seconds=0.35).read("t", {}, end).values
    finally:
        assert consumer.closed


def test_a_long_range_may_take_longer_than_the_limit_as_long_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[int, tuple[int, bool]]] = [{0: (n, True)} for n in range(1, 9)]
    assert read_scripted(monkeypatch, given, {0: 8}) == [b"%d" % n for n in range(8)]
    aborted: list[dict[int, tuple[int, bool]]] = [{0: (n, False)} for n in range(1, 8)]
    assert read_scripted(monkeypatch, [*aborted, {0: (8, True)}, {0: (9, False)}], {0: 9}) == [b"7"]


def test_a_partition_that_gives_nothing_ends_the_reading_whatever_another_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the other one has much more than the range."""
    busy: list[dict[int, tuple[int, bool]]] = [{0: (n, True)} for n in range(1, 30)]
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"did not give \{\} to \{0: 2, 1: 5\}: no progress for 0.35 s"):
        read_scripted(monkeypatch, busy, {0: 2, 1: 5})
    assert time.monotonic() - began < 10


def test_questdb_answers_and_refuses_in_words(stack: Settings) -> None:
    assert QuestDBResource(address=str(stack.questdb)).frame("SELECT 1 + 1", {"sum": pl.Int64()}).rows() == [(2,)]
    with pytest.raises(questdb.QuestDBError, match="table does not exist .*SELECT \\* FROM nowhere"):
        questdb.execute(stack.questdb, "SELECT * FROM nowhere")
