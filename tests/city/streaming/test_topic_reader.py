"""Topics are read as they appear, and errors of Kafka are noted and left out. A consumer stands in for Kafka's."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from city.kafka import KafkaServer
from city.streaming import topic_reader
from city.streaming.topic_reader import TopicReader

AWAY = KafkaError(KafkaError._ALL_BROKERS_DOWN)
END = KafkaError(KafkaError._PARTITION_EOF)


class Message:
    """A message, or the error that comes in the place of one."""

    def __init__(self, value: bytes = b"", error: KafkaError | None = None) -> None:
        self._value, self._error = value, error

    def value(self) -> bytes:
        return self._value

    def error(self) -> KafkaError | None:
        return self._error


class FakeConsumer:
    """A consumer of the topics in `partitions` (topic → number of partitions)."""

    def __init__(self) -> None:
        self.partitions: dict[str, int] = {}
        self.failure: KafkaError | None = None
        self.messages: list[Message] = []
        self.assigned: list[tuple[str, int, int]] = []
        self.closed = False

    def list_topics(self, timeout: float) -> Any:
        if self.failure is not None:
            raise KafkaException(self.failure)
        return SimpleNamespace(
            topics={name: SimpleNamespace(partitions=dict.fromkeys(range(n))) for name, n in self.partitions.items()}
        )

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned += [(part.topic, part.partition, part.offset) for part in partitions]

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        gone = {(part.topic, part.partition) for part in partitions}
        self.assigned = [part for part in self.assigned if part[:2] not in gone]

    def consume(self, limit: int, seconds: float) -> list[Message]:
        batch, self.messages = self.messages[:limit], self.messages[limit:]
        return batch

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> FakeConsumer:
    fake = FakeConsumer()
    monkeypatch.setattr(topic_reader, "Consumer", lambda options: fake)
    monkeypatch.setattr(topic_reader, "_FIRST_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(topic_reader, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(topic_reader, "_LOOK_AGAIN_SECONDS", 0.0)
    return fake


def opened(**options: Any) -> TopicReader:
    def start(consumer: Any, topic: str, partitions: list[int]) -> list[TopicPartition]:
        return [TopicPartition(topic, number, 7) for number in partitions]

    reader = TopicReader(KafkaServer("kafka:9092"), ["a", "b"], "test", start, {}, **options)
    reader.open()
    return reader


def values(reader: TopicReader, limit: int = 10) -> list[bytes]:
    return [message.value() for message in reader.read(limit, 0.0, threading.Event())]


def test_partitions_are_assigned_as_they_appear_at_the_offsets_of_the_caller(consumer: FakeConsumer) -> None:
    reader = opened()
    assert reader.error == "not read yet"
    reader.look_for_topics()
    assert (consumer.assigned, reader.error) == ([], None)
    consumer.partitions = {"a": 1, "other": 1}
    reader.look_for_topics()
    consumer.partitions = {"a": 2, "b": 1}
    reader.look_for_topics()
    reader.look_for_topics()
    assert consumer.assigned == [("a", 0, 7), ("a", 1, 7), ("b", 0, 7)]


def test_a_look_comes_again_when_it_is_due(consumer: FakeConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_reader, "_LOOK_AGAIN_SECONDS", 60.0)
    consumer.partitions = {"a": 1}
    reader = opened()
    reader.look_for_topics()
    consumer.partitions = {"a": 1, "b": 1}
    reader.look_for_topics()  # soon: a topic was missing
    consumer.partitions = {"a": 2, "b": 1}
    reader.look_for_topics()  # later: all topics exist
    assert consumer.assigned == [("a", 0, 7), ("b", 0, 7)]
    reader.open()
    reader.look_for_topics()  # another consumer has no partitions
    assert consumer.assigned[2:] == [("a", 0, 7), ("a", 1, 7), ("b", 0, 7)]


def test_a_missing_topic_is_looked_for_more_often_in_the_first_minute(
    consumer: FakeConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The topics of a new city are created while its server starts."""
    monkeypatch.setattr(topic_reader, "_LOOK_SECONDS", 60.0)
    reader = opened()
    reader.look_for_topics()
    consumer.partitions = {"a": 1}
    reader.look_for_topics()
    assert consumer.assigned == [("a", 0, 7)]
    monkeypatch.setattr(topic_reader, "_START_SECONDS", 0.0)
    consumer.partitions = {"a": 1, "b": 1}
    reader.look_for_topics()
    assert consumer.assigned == [("a", 0, 7)]


def test_a_look_that_fails_is_noted_and_the_assigned_partitions_are_read(consumer: FakeConsumer) -> None:
    consumer.partitions = {"a": 1}
    reader = opened()
    reader.look_for_topics()
    consumer.failure = AWAY
    reader.look_for_topics()
    assert str(reader.error).startswith("Kafka at kafka:9092: ")
    consumer.messages = [Message(b"1")]
    assert values(reader) == [b"1"]
    assert reader.error is None


def test_errors_are_left_out_and_the_last_one_is_noted_until_a_message_comes(consumer: FakeConsumer) -> None:
    consumer.partitions = {"a": 1}
    reader = opened()
    reader.look_for_topics()
    consumer.messages = [Message(b"1"), Message(error=AWAY), Message(error=END), Message(b"2"), Message(error=AWAY)]
    assert values(reader, 4) == [b"1", b"2"]
    assert reader.error is None
    assert values(reader) == []
    assert str(reader.error).startswith("Kafka at kafka:9092: ")
    consumer.messages = [Message(error=END)]
    assert values(reader) == []
    assert reader.error is not None  # the end of a partition is no message
    consumer.messages = [Message(b"3")]
    assert values(reader) == [b"3"]
    assert reader.error is None


def test_a_topic_that_was_made_anew_is_assigned_again(consumer: FakeConsumer) -> None:
    looks: list[tuple[str, bool]] = []

    def on_look(topic: str, exists: bool) -> None:
        looks.append((topic, exists))
        if len(looks) > 2 and exists:
            reader.unassign(topic)

    consumer.partitions = {"a": 1}
    reader = opened(on_look=on_look)
    reader.look_for_topics()
    assert looks == [("a", True), ("b", False)]
    reader.look_for_topics()
    assert consumer.assigned == [("a", 0, 7)]


def test_without_partitions_nothing_is_consumed(consumer: FakeConsumer) -> None:
    reader = opened()
    consumer.messages = [Message(b"1")]
    assert values(reader) == []
    reader.close()
    assert consumer.closed
