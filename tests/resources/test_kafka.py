import threading
import time
import uuid
from dataclasses import replace

import pytest
from confluent_kafka import Producer

from city import questdb
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.decode import decode
from city.streaming.records import Batch, behind
from city.streaming.topics import ensure_topics
from city_assets.environment.contract import DEVICES
from resources.kafka import KafkaResource
from resources.questdb import QuestDBResource
from tests.live import until


def test_a_range_of_a_topic_is_read_exactly(stack: Settings) -> None:
    topic = uuid.uuid4().hex
    kafka = KafkaResource(address=stack.kafka)
    assert kafka.ends(topic) == {}
    ensure_topics(stack.kafka, [replace(DEVICES, topic=topic, partitions=2)])
    producer = Producer({"bootstrap.servers": stack.kafka})
    for number in range(20):
        producer.produce(topic, str(number).encode(), partition=number % 2)
    producer.flush(10)
    assert kafka.ends(topic) == {0: 10, 1: 10}
    found = kafka.read(topic, {0: 3, 1: 9}, {0: 5, 1: 10})
    assert sorted(zip(found.partitions.tolist(), found.offsets.tolist(), found.values, strict=True)) == [
        (0, 3, b"6"),
        (0, 4, b"8"),
        (1, 9, b"19"),
    ]
    assert (found.start, found.end) == ({0: 3, 1: 9}, {0: 5, 1: 10})
    assert kafka.read(topic, {0: 5}, {0: 5}).values == []
    with pytest.raises(TimeoutError, match="did not give"):
        KafkaResource(address=stack.kafka, seconds=1).read(topic, {0: 0}, {0: 99})


def test_a_transaction_that_was_aborted_is_not_read_and_markers_leave_no_lag(stack: Settings) -> None:
    """Three messages aborted, three committed, then three aborted: the range ends in what has no message."""
    contract = replace(DEVICES, name=f"t{uuid.uuid4().hex[:8]}", topic=uuid.uuid4().hex, partitions=1)
    ensure_topics(stack.kafka, [contract])
    kafka = KafkaResource(address=stack.kafka, seconds=10)
    producer = Producer({"bootstrap.servers": stack.kafka, "transactional.id": contract.topic})
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
    assert not behind(BronzeStream(stack.lake, contract).load([0]), kafka.ends(contract.topic))
    producer.begin_transaction()
    producer.produce(contract.topic, b"open")
    producer.flush(10)
    assert kafka.ends(contract.topic) == end  # what is open cannot be read yet, and is not waited for
    producer.abort_transaction(20)


def test_questdb_answers_and_refuses_in_words(stack: Settings) -> None:
    assert QuestDBResource(address=stack.questdb).rows("SELECT 1 + 1") == [[2]]
    with pytest.raises(questdb.QuestDBError, match="table does not exist .*SELECT \\* FROM nowhere"):
        questdb.execute(stack.questdb, "SELECT * FROM nowhere")
