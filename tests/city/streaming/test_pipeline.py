"""The hot path on a real Kafka and a real QuestDB."""

import os
import threading
import time
import uuid
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from city import questdb
from city.contracts.model import Contract
from city.lake import bronze_path, quarantine_path
from city.settings import Settings
from city.stack.embedded import await_running
from city.stack.part import Part
from city.stack.state import read_json
from city.stack.worker import workers
from city.streaming.bronze import BronzeStream
from city.streaming.decode import decode
from city.streaming.job import StreamJob
from city.streaming.pipeline import questdb_sink
from city.streaming.records import Batch, RawBatch
from city.streaming.sinks.questdb import QuestDBSink
from city.streaming.source import TopicReset
from city.streaming.table_writer import Fenced
from city.streaming.windows import compute
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.live import consume, fresh, kill, restarted, send, streaming, trips_in_bronze, until


@pytest.fixture
def contract() -> Contract:
    """The traffic contract under a name, a topic and tables of the test's own."""
    name = f"t{uuid.uuid4().hex[:8]}"
    window = replace(VEHICLE_POSITIONS.windows[0], name=f"{name}_cells", topic=f"{name}.windows")
    return replace(VEHICLE_POSITIONS, name=name, topic=name, windows=(window,), partitions=2)


def trips_in_questdb(stack: Settings, contract: Contract) -> list[str]:
    return sorted(row[0] for row in questdb.rows(stack.questdb, f"SELECT trip_id FROM {contract.name}"))


def test_events_reach_bronze_questdb_windows_and_the_dashboard(stack: Settings, contract: Contract) -> None:
    good, bad = fresh(50), [b"\x00\xff", b'{"vehicle_id": 1}', b"x" * 10_000_000]
    send(stack, contract, *good, *bad)
    with streaming(contract, stack) as job:
        until(lambda: job.summary()[0]["rows"] == 50 and not any(job.summary()[0]["sinks_behind"].values()))
        until(lambda: len(trips_in_questdb(stack, contract)) == 50)
        report = until(lambda: read_json(stack, "stream.json"))
        assert report["streams"][0]["topic"] == contract.topic
    expected = sorted(f"t{n}" for n in range(50))
    assert trips_in_bronze(stack, contract) == trips_in_questdb(stack, contract) == expected
    quarantine = pl.read_delta(str(quarantine_path(stack.lake, contract)))
    assert sorted(quarantine["raw"].to_list()) == sorted(bad)
    assert quarantine["reasons"].list.len().min() > 0  # type: ignore[operator]
    assert quarantine["topic"].unique().to_list() == [contract.topic]
    window = contract.windows[0]
    rows = questdb.rows(stack.questdb, f"SELECT cell, vehicle_count, positions, speed_mean FROM {window.name}")
    wanted = compute(contract, window, pl.read_delta(str(bronze_path(stack.lake, contract))))
    assert (
        sorted(map(tuple, rows))
        == wanted.select("cell", "vehicle_count", "positions", "speed_mean").sort("cell").rows()
    )
    events = [event for event in consume(stack, "dashboard_events") if event["kind"] == contract.name]
    assert sorted(event["trip_id"] for event in events) == expected
    assert len({event["id"] for event in events}) == 50
    last = {message["id"]: message for message in consume(stack, f"{contract.name}.windows")}
    assert sum(message["positions"] for message in last.values()) == 50
    assert read_json(stack, "stream.json")["ended"]  # type: ignore[index]


def test_a_second_run_goes_on_where_the_first_ended(stack: Settings, contract: Contract) -> None:
    for first in (0, 20):
        send(stack, contract, *fresh(20, first))
        with streaming(contract, stack):
            until(lambda first=first: len(trips_in_questdb(stack, contract)) == first + 20)
    assert len(trips_in_bronze(stack, contract)) == 40
    positions = questdb.rows(
        stack.questdb, f"SELECT sum(positions), sum(vehicle_count) FROM {contract.windows[0].name}"
    )
    assert positions == [[40, 40]]


def test_a_sink_that_lost_everything_is_caught_up_from_bronze(stack: Settings, contract: Contract) -> None:
    send(stack, contract, *fresh(30))
    with streaming(contract, stack, ()) as job:
        until(lambda: job.summary()[0]["rows"] == 30)
    with streaming(contract, stack):
        until(lambda: len(trips_in_questdb(stack, contract)) == 30)
    questdb.execute(stack.questdb, f"DROP TABLE {contract.name}")
    with streaming(contract, stack):
        until(lambda: len(trips_in_questdb(stack, contract)) == 30)


def test_of_two_copies_one_is_fenced_off_and_says_so(stack: Settings, contract: Contract) -> None:
    send(stack, contract, *fresh(5))
    old, new = StreamJob([contract], stack, ()), StreamJob([contract], stack, ())
    failures: dict[str, BaseException] = {}

    def run(name: str, job: StreamJob) -> None:
        try:
            job.run()
        except BaseException as error:
            failures[name] = error

    threads = [threading.Thread(daemon=True, target=run, args=pair) for pair in (("old", old), ("new", new))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 40
    count = 5
    while not failures and time.monotonic() < deadline:
        send(stack, contract, *fresh(5, count))
        count += 5
        time.sleep(0.2)
    survivor = new if "old" in failures else old
    until(lambda: len(trips_in_bronze(stack, contract)) == count)
    survivor.stop.set()
    for thread in threads:
        thread.join(20)
    (error,) = failures.values()
    assert isinstance(error, Fenced)
    assert "another process now writes" in str(error)
    assert trips_in_bronze(stack, contract) == sorted(f"t{n}" for n in range(count))


def test_windows_that_a_fenced_copy_sends_late_do_not_stay(stack: Settings, contract: Contract) -> None:
    """QuestDB keeps what came last. The old copy has made its windows, and sends them when it is fenced off already."""
    held, go_on, sent = threading.Event(), threading.Event(), threading.Event()

    class Slow(QuestDBSink):
        def _send_frame(self, table: str, frame: pl.DataFrame, symbols: list[str], at: str) -> None:
            if table != contract.name and frame["positions"].sum() > 5:
                held.set()
                assert go_on.wait(60)
            super()._send_frame(table, frame, symbols, at)
            if held.is_set():
                sent.set()

    with streaming(contract, stack, (lambda c, s, bronze: Slow(c, s.questdb, bronze),)) as old:
        send(stack, contract, *fresh(5))
        until(lambda: len(trips_in_questdb(stack, contract)) == 5)
        send(stack, contract, *fresh(5, 5))
        assert held.wait(20)
        with streaming(contract, stack, (questdb_sink,)) as new:
            send(stack, contract, *fresh(5, 10))
            until(lambda: "another process now writes" in str(old.summary()[0]["last_error"]))
            said = until(lambda: new.summary()[0]["last_error"] or len(trips_in_questdb(stack, contract)) == 15)
            go_on.set()
            assert sent.wait(20)
            until(lambda: len(trips_in_questdb(stack, contract)) == 15)
            until(lambda: new.summary()[0]["last_error"] is None)
    bronze = pl.read_delta(str(bronze_path(stack.lake, contract)))
    window = contract.windows[0]
    wanted = compute(contract, window, bronze).select("window_start", "cell", "positions")
    rows = questdb.rows(stack.questdb, f"SELECT cell, positions FROM {window.name} ORDER BY window_start, cell")
    assert [tuple(row) for row in rows] == wanted.sort("window_start", "cell").select("cell", "positions").rows()
    assert wanted["positions"].sum() == 15
    assert f"process {os.getpid()} from before still writes" in str(said)


def test_a_copy_without_anything_to_write_learns_that_it_is_fenced_off(stack: Settings, contract: Contract) -> None:
    send(stack, contract, *fresh(5))
    with streaming(contract, stack, ()) as old:
        until(lambda: old.summary()[0]["rows"] == 5)
        with streaming(contract, stack, ()):
            until(lambda: "another process now writes" in str(old.summary()[0]["last_error"]))


def delete(stack: Settings, contract: Contract) -> None:
    admin = AdminClient({"bootstrap.servers": str(stack.kafka)})
    admin.delete_topics([contract.topic])[contract.topic].result(10)
    until(lambda: contract.topic not in admin.list_topics(timeout=5).topics)


@pytest.mark.parametrize("later", [0, 30])
def test_a_topic_that_was_made_anew_is_not_mistaken_for_the_one_before(
    stack: Settings, contract: Contract, later: int
) -> None:
    """Also where it is longer by now than what the lake holds of the one before."""
    send(stack, contract, *fresh(10))
    with streaming(contract, stack, ()) as job:
        until(lambda: job.summary()[0]["rows"] == 10)
    delete(stack, contract)
    if later:
        send(stack, contract, *fresh(later))
    with pytest.raises(TopicReset, match=r"deleted and created again.*CITY_HOME"):
        StreamJob([contract], stack, ()).run()
    assert len(trips_in_bronze(stack, contract)) == 10
    assert "created again" in str(read_json(stack, "stream.json")["failure"])  # type: ignore[index]
    assert not [worker for worker in workers() if contract.name in worker.name], "whoever ran it knows"


def test_a_topic_that_ends_before_what_the_lake_holds_is_said(stack: Settings, contract: Contract) -> None:
    """Of a lake from before topics were known by their ids."""
    send(stack, contract, *fresh(1))
    raw = RawBatch([], np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64), {0: 0}, {0: 9_000})
    rows, rejects = decode(contract, raw, {})
    bronze = BronzeStream(stack.lake, contract)
    bronze.load([0])
    bronze.commit(Batch(rows, raw.start, raw.end), rejects, {}, threading.Event(), print)
    with pytest.raises(TopicReset, match=r"ends at \d, but the lake holds it up to 9000.*CITY_HOME"):
        StreamJob([contract], stack, ()).run()


def test_what_expired_in_kafka_unread_is_said_for_as_long_as_the_stream_runs(
    stack: Settings, contract: Contract
) -> None:
    contract = replace(contract, partitions=1)
    send(stack, contract, *fresh(5))
    with streaming(contract, stack, ()) as job:
        until(lambda: job.summary()[0]["rows"] == 5)
    send(stack, contract, *fresh(5, 5))
    admin = AdminClient({"bootstrap.servers": str(stack.kafka)})
    for done in admin.delete_records([TopicPartition(contract.topic, 0, 8)]).values():
        done.result(10)
    with streaming(contract, stack, ()) as job:
        until(lambda: job.summary()[0]["rows"] == 2)
        assert job.summary()[0]["last_error"] == f"{contract.topic}/0: offsets 5 to 7 expired in Kafka unread"


def test_bronze_goes_on_while_questdb_is_away_and_questdb_is_caught_up(
    stack: Settings, contract: Contract, stack_parts: tuple[Settings, dict[str, Part]]
) -> None:
    server = stack_parts[1]["questdb"]
    send(stack, contract, *fresh(20))
    with streaming(contract, stack) as job:
        until(lambda: len(trips_in_questdb(stack, contract)) == 20)
        kill(server)
        send(stack, contract, *fresh(20, 20))
        until(lambda: len(trips_in_bronze(stack, contract)) == 40)
        said = until(lambda: job.summary()[0]["last_error"])
        assert "questdb" in said
        assert job.summary()[0]["sinks_behind"]["kafka"] == 0
        restarted(server)
        assert "killed by SIGKILL" in str(server.last_error)
        await_running(server)
        until(lambda: len(trips_in_questdb(stack, contract)) == 40)
        until(lambda: job.summary()[0]["last_error"] is None)
    assert trips_in_questdb(stack, contract) == trips_in_bronze(stack, contract)
    assert questdb.rows(stack.questdb, f"SELECT sum(positions) FROM {contract.windows[0].name}") == [[40]]


def test_a_killed_kafka_is_waited_for_and_said_plainly(
    stack: Settings, contract: Contract, stack_parts: tuple[Settings, dict[str, Part]]
) -> None:
    server = stack_parts[1]["kafka"]
    send(stack, contract, *fresh(20))
    with streaming(contract, stack) as job:
        until(lambda: len(trips_in_bronze(stack, contract)) == 20)
        kill(server)
        assert "Kafka" in until(lambda: job.summary()[0]["last_error"])
        await_running(restarted(server))
        send(stack, contract, *fresh(20, 20))
        until(lambda: len(trips_in_bronze(stack, contract)) == 40, 60)
        until(lambda: len(trips_in_questdb(stack, contract)) == 40)
        until(lambda: job.summary()[0]["last_error"] is None)
    assert trips_in_bronze(stack, contract) == sorted(f"t{n}" for n in range(40))
