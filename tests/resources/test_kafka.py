import uuid
from dataclasses import replace

import pytest
from confluent_kafka import Producer

from city import questdb
from city.settings import Settings
from city.streaming.topics import ensure_topics
from city_assets.environment.contract import DEVICES
from resources.kafka import KafkaResource
from resources.questdb import QuestDBResource


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


def test_questdb_answers_and_refuses_in_words(stack: Settings) -> None:
    assert QuestDBResource(address=stack.questdb).rows("SELECT 1 + 1") == [[2]]
    with pytest.raises(questdb.QuestDBError, match="table does not exist .*SELECT \\* FROM nowhere"):
        questdb.execute(stack.questdb, "SELECT * FROM nowhere")
