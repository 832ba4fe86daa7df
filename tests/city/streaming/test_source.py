"""The hot path's reader, on the broker that librdkafka itself has for tests: no server is started."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer

from city.kafka import KafkaServer
from city.streaming import source as module
from city.streaming.pacing import Pacing
from city.streaming.source import KafkaSource
from tests.live import until

TOPIC = "positions"


@pytest.fixture
def producer() -> Producer:
    """Its broker lives as long as it does."""
    return Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none:1", "log_level": 0})


@pytest.fixture
def source(producer: Producer, monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaSource]:
    """A reader that is told where an offset is not in the topic, and does not begin elsewhere by itself."""
    monkeypatch.setattr(module, "Consumer", lambda config: Consumer(config | {"auto.offset.reset": "error"}))
    broker = next(iter(producer.list_topics(timeout=5).brokers.values()))
    reader = KafkaSource(KafkaServer(f"{broker.host}:{broker.port}"), TOPIC, 1_000, Pacing(0.2))
    yield reader
    reader.close()


def send(producer: Producer, partition: int, *values: bytes) -> None:
    for value in values:
        producer.produce(TOPIC, value, partition=partition)
    assert producer.flush(5) == 0


def test_an_error_at_an_offset_is_no_message_of_it(
    producer: Producer, source: KafkaSource, caplog: pytest.LogCaptureFixture
) -> None:
    """librdkafka gives errors among the messages, some of them with an offset and a text for a value."""
    send(producer, 0, b"a", b"b")
    send(producer, 1, b"c")
    source.start({0: 0, 1: 1_000})  # partition 1 has one message
    batch = until(source.poll)
    assert (batch.start, batch.end, batch.values) == ({0: 0}, {0: 2}, [b"a", b"b"])
    until(lambda: "Offset out of range" in caplog.text)
    assert source.poll() is None
    assert source._position == {0: 2, 1: 1_000}


def test_an_error_without_an_offset_skips_no_message_around_it(producer: Producer, source: KafkaSource) -> None:
    send(producer, 0, *(b"%d" % number for number in range(6)))
    source.consumer = _Interrupted(source.consumer)  # type: ignore[assignment]
    source.start({0: 2})
    batch = until(source.poll)
    assert (batch.start, batch.end, batch.values) == ({0: 2}, {0: 6}, [b"2", b"3", b"4", b"5"])
    until(lambda: "All broker connections are down" in str(source.last_error))
    send(producer, 0, b"6")
    batch = until(source.poll)
    assert (batch.start, batch.end, batch.values) == ({0: 6}, {0: 7}, [b"6"])
    assert source.last_error is None


def test_a_kafka_that_went_away_is_reported_until_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ERROR_SECONDS", 0.0)  # what the error callback reports is over at once
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none:1", "log_level": 0})
    broker = next(iter(producer.list_topics(timeout=5).brokers.values()))
    address = f"{broker.host}:{broker.port}"
    send(producer, 0, b"a")
    reader = KafkaSource(KafkaServer(address), TOPIC, 1_000, Pacing(0.2))
    try:
        reader.start({0: 0})
        assert until(reader.poll).values == [b"a"]
        idle = time.monotonic() + 2.5
        while time.monotonic() < idle:
            assert reader.poll() is None
            assert reader.last_error is None, "a topic without messages is no error"
        del producer  # its broker ends with it
        assert until(lambda: reader.last_error) == f"Kafka at {address} is unavailable: no broker is connected"
    finally:
        reader.close()
    reader._on_statistics('{"brokers": {"a": {"state": "CONNECT"}, "b": {"state": "UP"}}, "topics": {}}')
    assert reader._connected
    reader._on_statistics('{"brokers": {"a": {"state": "DOWN"}, "b": {"state": "INIT"}}, "topics": {}}')
    assert not reader._connected


class _Interrupted:
    """A consumer whose first messages have an error before, between and after them, and nothing but an error next."""

    def __init__(self, consumer: Any) -> None:
        self._consumer, self._calls = consumer, 0

    def consume(self, number: int, seconds: float) -> list[Any]:
        error = Message(topic=TOPIC, partition=0, error=KafkaError(KafkaError._ALL_BROKERS_DOWN))
        assert error.offset() is None
        if self._calls == 1:
            self._calls = 2
            return [error]
        messages = self._consumer.consume(number, seconds)
        if messages and not self._calls:
            self._calls = 1
            return [error, *messages[:1], error, *messages[1:], error]
        return list(messages)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)
