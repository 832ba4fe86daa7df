"""The streaming job where a commit is in flight when something else fails. Kafka is a script; the lake is real."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from confluent_kafka import KafkaError, KafkaException
from deltalake import DeltaTable, write_deltalake

from city.contracts.model import Contract
from city.lake import bronze_path
from city.settings import Settings
from city.stack.state import STREAM, read_json, stream_crashes
from city.streaming import pipeline as pipeline_module
from city.streaming import table_writer as table_writer_module
from city.streaming.bronze import BronzeStream
from city.streaming.decode import decode
from city.streaming.job import StreamJob
from city.streaming.records import Batch, Offsets, RawBatch
from city.streaming.source import TopicReset
from city.streaming.table_writer import Fenced
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.events import encode, position, raw

FIRST = replace(VEHICLE_POSITIONS, name="first", topic="first", windows=())
SECOND = replace(VEHICLE_POSITIONS, name="second", topic="second", windows=())


class ScriptedSource:
    """Gives three messages at each turn, from where it is started; `on_poll` is called with the number of the turn."""

    def __init__(self, on_poll: Callable[[int], None]) -> None:
        self.changed, self.last_error, self.expired = False, None, None
        self.started: Offsets = {}
        self.next = 0
        self._on_poll, self._turns = on_poll, 0

    def partitions(self) -> list[int]:
        return [0]

    def verify(self, position: Offsets, resume: Offsets, recorded: int | None) -> int | None:
        return recorded

    def start(self, position: Offsets) -> None:
        self.started, self.next = dict(position), position[0]

    def poll(self) -> RawBatch:
        self._turns += 1
        self._on_poll(self._turns)
        self.next += 3
        return messages(self.next - 3)

    def lag(self) -> int:
        return 0

    def close(self) -> None: ...


def messages(first: int) -> RawBatch:
    return raw(encode(*(position(trip_id=f"t{first + n}") for n in range(3))), first=first)


def commit(stream: BronzeStream, first: int) -> None:
    received = messages(first)
    rows, rejects = decode(stream.contract, received, stream.watermarks)
    stream.commit(Batch(rows, received.start, received.end), rejects, {}, threading.Event(), print)


def offsets(config: Settings, contract: Contract) -> list[int]:
    return pl.read_delta(str(bronze_path(config.lake, contract)))["_offset"].sort().to_list()


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[ScriptedSource]]:
    """What the job is to read, by topic: one source for each time that a pipeline begins."""
    scripts: dict[str, list[ScriptedSource]] = {}
    monkeypatch.setattr(pipeline_module, "ensure_topics", lambda *_: None)
    monkeypatch.setattr(pipeline_module, "KafkaSource", lambda address, topic, *_: scripts[topic].pop(0))
    return scripts


def away() -> KafkaException:
    return KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN))


def before_the_second_commit(monkeypatch: pytest.MonkeyPatch, contract: Contract, act: Callable[[], None]) -> None:
    """Calls `act` while the second commit of rows to a contract's bronze is in flight."""
    count = 0

    def write(table: DeltaTable, rows: pl.DataFrame, **options: Any) -> None:
        nonlocal count
        if f"/{contract.name}" in table.table_uri:
            count += 1
            if count == 2:
                act()
        write_deltalake(table, rows, **options)

    monkeypatch.setattr(table_writer_module, "write_deltalake", write)


def test_a_copy_that_is_fenced_off_while_its_reading_fails_ends_and_does_not_begin_again(
    config: Settings, sources: dict[str, list[ScriptedSource]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To begin again would be to claim again, and so to end the copy that it has been ended by."""
    in_flight, reading_failed = threading.Event(), threading.Event()
    successor = BronzeStream(config.lake, FIRST)
    job = StreamJob([FIRST, SECOND], config, sinks=())

    def fail_at_the_third(turn: int) -> None:
        if turn == 3:
            assert in_flight.wait(10)
            reading_failed.set()
            raise away()

    def claim() -> None:
        in_flight.set()
        assert reading_failed.wait(10)
        time.sleep(0.1)
        successor.claim([0], threading.Event(), print)

    before_the_second_commit(monkeypatch, FIRST, claim)
    again = ScriptedSource(lambda turn: job.stop.set())

    def go_on(turn: int) -> None:
        time.sleep(0.05)
        if turn == 200:  # for a test that fails
            job.stop.set()

    other = ScriptedSource(go_on)
    sources |= {"first": [ScriptedSource(fail_at_the_third), again], "second": [other]}
    with pytest.raises(Fenced, match="another process now writes first"):
        job.run()
    assert stream_crashes(read_json(config, STREAM)) == 0, "its successor streams"
    assert sources["first"] == [again]
    assert successor.position == {0: 3}
    successor.check()
    commit(successor, 3)
    assert offsets(config, FIRST) == list(range(6))
    # It has ended the other pipeline too, between two batches.
    assert offsets(config, SECOND) == list(range(other.next))
    assert 0 < other.next < 600


def test_a_stream_that_cannot_go_on_has_failed_and_the_next_one_knows(
    config: Settings, sources: dict[str, list[ScriptedSource]]
) -> None:
    def made_anew(turn: int) -> None:
        raise TopicReset("the topic was made anew")

    for failures in (1, 2):
        sources |= {"first": [ScriptedSource(made_anew)]}
        with pytest.raises(TopicReset):
            StreamJob([FIRST], config, sinks=()).run()
        assert stream_crashes(read_json(config, STREAM)) == failures
    job = StreamJob([FIRST], config, sinks=())
    sources |= {"first": [ScriptedSource(lambda turn: job.stop.set())]}
    job.run()
    assert stream_crashes(read_json(config, STREAM)) == 2, "this one was asked to end"


def test_reading_that_fails_while_a_batch_is_committed_goes_on_after_that_batch(
    config: Settings, sources: dict[str, list[ScriptedSource]], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_flight = threading.Event()
    job = StreamJob([FIRST], config, sinks=())

    def fail_at_the_third(turn: int) -> None:
        if turn == 3:
            assert in_flight.wait(10)
            raise away()

    def take_long() -> None:
        in_flight.set()
        time.sleep(1.0)

    before_the_second_commit(monkeypatch, FIRST, take_long)
    again = ScriptedSource(lambda turn: job.stop.set() if turn == 2 else None)
    sources |= {"first": [ScriptedSource(fail_at_the_third), again]}
    job.run()
    assert again.started == {0: 6}
    assert offsets(config, FIRST) == list(range(again.next))
    assert again.next == 12
