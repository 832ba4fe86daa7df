"""Faults, each through the path where it happened. `pytest -s tests/test_faults.py tests/test_alarm_faults.py
tests/test_up.py` prints a table of what was reported, on which channel, after how many seconds, and what was lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from city.contracts.model import Contract
from city.lake import bronze_path, quarantine_path
from city.settings import Settings
from city.stack.state import SUPERVISOR, identity
from city.stack.status import status
from city.streaming.bridge import Bridge
from city.streaming.heartbeat import Heartbeat
from city.streaming.job import StreamJob
from city.streaming.records import Offsets
from city.streaming.sinks.base import Sink
from city.streaming.source import TopicReset
from city.streaming.strays import strays_path
from city.streaming.topics import MAX_MESSAGE_BYTES, ensure_topics
from city.streaming.windows import Changed
from city_assets import keys
from city_assets.environment.contract import DEVICES, SENSORS
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.city.streaming.test_bridge import publisher, run
from tests.city.streaming.test_pipeline import delete, trips_in_questdb
from tests.events import encode, iso, reading
from tests.faults import FaultTable
from tests.live import fresh, send, streaming, trips_in_bronze, until
from tests.sensors_and_schedules.test_keep_fresh import (  # noqa: F401  # two of them are fixtures
    BRONZE,
    QUARANTINE,
    TODAY,
    City,
    city,
    days_of,
    repository,
)


@pytest.fixture
def contract() -> Contract:
    name = f"f{uuid.uuid4().hex[:8]}"
    return replace(SENSORS, name=name, topic=name, mqtt=f"{name}/<location>/<type>", windows=(), partitions=1)


@pytest.fixture
def vehicles() -> Contract:
    name = f"f{uuid.uuid4().hex[:8]}"
    window = replace(VEHICLE_POSITIONS.windows[0], name=f"{name}_cells", topic=f"{name}.windows")
    return replace(VEHICLE_POSITIONS, name=name, topic=name, windows=(window,), partitions=2)


def now(**changes: Any) -> bytes:
    (message,) = encode(reading(timestamp=iso(datetime.now(UTC)), **changes))
    return message or b""


def rows(path: Any) -> pl.DataFrame:
    return pl.read_delta(str(path))


def test_mqtt_messages_that_nobody_can_use(stack: Settings, contract: Contract, table: FaultTable) -> None:
    """Each is followed by a reading, which must arrive."""
    topic = f"{contract.name}/downtown/traffic"
    bridge = Bridge([contract], stack)
    with run(bridge), streaming(contract, stack, sinks=()):
        assert bridge.session is not None
        # As a session of an earlier bridge still would.
        bridge.session.client.subscribe(f"{contract.name}-old", 1)
        client = publisher(stack)

        def quarantined() -> list[str]:
            return [reason for reasons in rows(quarantine_path(stack.lake, contract))["reasons"] for reason in reasons]

        def strays() -> list[str]:
            return [reason for reasons in rows(strays_path(stack.lake))["reasons"] for reason in reasons]

        def arrived(value: int) -> bool:
            return value in rows(bronze_path(stack.lake, contract))["value"].to_list()

        faults: list[tuple[str, str, bytes, Callable[[], list[str]], str]] = [
            ("MQTT message of 1.1 MB", topic, b"\xff" * 1_100_000, quarantined, "1,100,000 bytes"),
            ("MQTT message of 21 MB", topic, b"x" * (MAX_MESSAGE_BYTES + 1), strays, "20,971,521 bytes"),
            ("MQTT message that is no JSON", topic, b"{broken", quarantined, "not JSON"),
            (
                "MQTT topic of a removed contract",
                f"{contract.name}-old",
                now(),
                strays,
                "no contract and no source has",
            ),
        ]
        for value, (fault, to, payload, reasons, wanted) in enumerate(faults):
            client.publish(to, payload, qos=1).wait_for_publish(30)
            client.publish(topic, now(value=value), qos=1).wait_for_publish(30)
            said, seconds = table.watch(lambda r=reasons, w=wanted: [reason for reason in r() if w in reason])
            until(lambda v=value: arrived(v))
            values = rows(bronze_path(stack.lake, contract))["value"].to_list()
            table.add(fault, f"quarantine: {said[0]}", seconds, len({*range(value + 1)} - {*values}))
        assert bridge.worker.restarts == 0

        def broken() -> None:
            raise RuntimeError("a fault nobody thought of")

        broken_session = bridge.session
        broken_session.turn = broken  # type: ignore[method-assign]
        said, seconds = table.watch(
            lambda: (text := json.loads((stack.run / "mqtt-bridge.json").read_text())["last_error"]) and text
        )
        assert "a fault nobody thought of" in said
        client.publish(topic, now(value=99), qos=1).wait_for_publish(30)
        until(lambda: arrived(99))
        values = rows(bronze_path(stack.lake, contract))["value"].to_list()
        table.add("the bridge's loop raises", said, seconds, len({*range(4), 99} - {*values}))
        client.disconnect()
        client.loop_stop()


def test_a_paused_stream_and_a_source_that_falls_silent(stack: Settings, table: FaultTable) -> None:
    """Both at once, for each takes its half minute: a stream's process is stopped for 20 s (SIGSTOP), and one of two
    sources of 200 events a second counts no more."""
    stack.run.mkdir(parents=True, exist_ok=True)
    part = identity() | {"address": "a", "state": "running", "last_error": None}
    names = ("mqtt-bridge", "simulator-traffic")
    (stack.run / SUPERVISOR).write_text(json.dumps(identity() | {"parts": dict.fromkeys(names, part)}))
    beats = {name: Heartbeat(stack, name) for name in names}
    stream = subprocess.Popen([sys.executable, "-m", "city.cli.main", "stream", "traffic"], env=os.environ)
    sent = 0

    def trips() -> pl.Series:
        return rows(bronze_path(stack.lake, VEHICLE_POSITIONS))["trip_id"]

    def beat(*counting: str) -> None:
        nonlocal sent
        send(stack, VEHICLE_POSITIONS, *fresh(10, first=sent + 1_000_000))
        sent += 10
        for name in names:
            beats[name].count(200 if name in counting else 0)
            beats[name].beat()
        time.sleep(1)

    try:
        until(lambda: status(stack)["parts"]["stream"]["state"] == "running")
        for _ in range(16):
            beat(*names)
        os.kill(stream.pid, signal.SIGSTOP)
        began, said = time.monotonic(), dict[str, tuple[str, float]]()
        while len(said) < 2 and time.monotonic() - began < 45:
            beat("simulator-traffic")
            parts = status(stack)["parts"]
            assert parts["simulator-traffic"]["last_error"] is None
            for name in ("stream", "mqtt-bridge"):
                error = parts[name]["last_error"]
                if error and "no progress" in error and name not in said:
                    said[name] = (error, time.monotonic() - began)
        assert stream.poll() is None
        os.kill(stream.pid, signal.SIGCONT)
        ours = [f"t{n}" for n in range(1_000_000, 1_000_000 + sent)]
        until(lambda: trips().is_in(ours).sum() >= sent)
        until(lambda: status(stack)["parts"]["stream"]["last_error"] is None)
        assert stream.poll() is None  # neither replaced nor fenced
        received = trips().filter(trips().is_in(ours))
        assert received.is_unique().all()
    finally:
        os.kill(stream.pid, signal.SIGCONT)
        stream.send_signal(signal.SIGINT)
        stream.wait(30)
    table.add("the stream's process is paused", *said["stream"], sent - received.len())
    table.add("200 events/s become 0, its peers go on", *said["mqtt-bridge"], 0)
    assert said["mqtt-bridge"][1] < 31


def run_until_reset(job: StreamJob, resets: list[TopicReset]) -> None:
    """Runs in a thread, in which a failed assertion would fail no test."""
    try:
        job.run()
    except TopicReset as reset:
        resets.append(reset)


def test_a_topic_that_was_made_anew_ends_its_own_stream_and_no_other(
    stack: Settings, vehicles: Contract, table: FaultTable
) -> None:
    other = replace(vehicles, name=f"{vehicles.name}b", topic=f"{vehicles.topic}b", windows=())
    send(stack, vehicles, *fresh(10))
    with streaming(vehicles, stack, ()) as job:
        until(lambda: job.summary()[0]["rows"] == 10)
    delete(stack, vehicles)
    send(stack, other, *fresh(5))
    both = StreamJob([vehicles, other], stack, ())
    resets: list[TopicReset] = []
    thread = threading.Thread(daemon=True, target=run_until_reset, args=(both, resets))
    thread.start()
    said, seconds = table.watch(lambda: (text := both.summary()[0]["last_error"]) and "created again" in text and text)
    send(stack, other, *fresh(5, 5))
    until(lambda: len(trips_in_bronze(stack, other)) == 10)
    assert both.summary()[1]["last_error"] is None
    both.stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert len(resets) == 1
    table.add("a topic is deleted and created again", said, seconds, 10 - len(trips_in_bronze(stack, other)))


def test_a_partition_that_is_added_while_the_stream_runs_is_read(
    stack: Settings, vehicles: Contract, table: FaultTable
) -> None:
    send(stack, vehicles, *fresh(10))
    with streaming(vehicles, stack) as job:
        until(lambda: job.summary()[0]["rows"] == 10)
        admin = AdminClient({"bootstrap.servers": str(stack.kafka)})
        admin.create_partitions([NewPartitions(vehicles.topic, 3)])[vehicles.topic].result(10)
        producer = Producer({"bootstrap.servers": str(stack.kafka)})
        for message in fresh(100, 10):
            producer.produce(vehicles.topic, message, partition=2)
        assert producer.flush(10) == 0
        _, seconds = table.watch(lambda: len(trips_in_bronze(stack, vehicles)) == 110)
        assert seconds < 60
        until(lambda: len(trips_in_questdb(stack, vehicles)) == 110)
        until(lambda: job.summary()[0]["lag"] == 0)
    lost = 110 - len(trips_in_bronze(stack, vehicles))
    table.add("a partition is added to a topic in use", "read, and in the lag", seconds, lost)


def test_aborted_transactions_are_not_read_and_their_markers_are_no_lag(
    stack: Settings, vehicles: Contract, table: FaultTable
) -> None:
    vehicles = replace(vehicles, partitions=1)
    ensure_topics(stack.kafka, [vehicles])
    producer = Producer({"bootstrap.servers": str(stack.kafka), "transactional.id": vehicles.name})
    producer.init_transactions(20)
    messages = fresh(6)
    for part, end in ((messages[:3], producer.abort_transaction), (messages[3:], producer.commit_transaction)):
        producer.begin_transaction()
        for message in part:
            producer.produce(vehicles.topic, message)
        producer.flush(10)
        end(20)
    with streaming(vehicles, stack, ()) as job:
        until(lambda: job.summary()[0]["rows"] == 3)
        _, seconds = table.watch(lambda: job.summary()[0]["lag"] == 0, 30)
    assert trips_in_bronze(stack, vehicles) == ["t3", "t4", "t5"]
    with streaming(vehicles, stack, ()) as job:  # nor after a restart, where nothing but a marker is left
        until(lambda: job.pipelines[0].report.lag == 0 and job.summary()[0]["rows"] == 0)
    stored = trips_in_bronze(stack, vehicles)
    table.add("a transaction is aborted, another committed", "lag 0, three events", seconds, 3 - len(stored))


def test_all_sinks_apply_what_is_committed_before_the_stream_ends(
    stack: Settings, vehicles: Contract, table: FaultTable
) -> None:
    applied: dict[str, int] = {"one": 0, "two": 0, "three": 0}

    class Slow(Sink):
        def __init__(self, name: str) -> None:
            self.name = name

        def open(self, recorded: Offsets) -> Offsets:
            return dict(recorded)

        def apply(self, rows: pl.DataFrame, start: Offsets, changed: Changed) -> None:
            time.sleep(1.0)
            applied[self.name] += rows.height

        def close(self) -> None:
            return

    send(stack, vehicles, *fresh(20))
    sinks = tuple((lambda c, s, b, name=name: Slow(name)) for name in applied)
    with streaming(vehicles, stack, sinks) as job:
        until(lambda: job.summary()[0]["rows"] == 20)
        began = time.monotonic()
    table.add(
        "the stream ends, its sinks are slow", "all drained", time.monotonic() - began, 60 - sum(applied.values())
    )
    assert applied == {"one": 20, "two": 20, "three": 20}


def test_an_hour_and_a_week_pass(stack: Settings, city: City, table: FaultTable) -> None:  # noqa: F811
    """The real definitions and conditions, with time moved. A day too many or too few would be the loss."""
    began = time.monotonic()
    for minutes in range(9, 79, 10):
        city.grew(BRONZE, QUARANTINE, keys.bronze(DEVICES), keys.quarantine(DEVICES))
        city.tick(minutes)
    days = [day for run in city.runs for day in days_of(run)]
    said = f"{len(city.runs)} runs of {len(set(days))} day in 70 minutes"
    table.add("a full hour passes over a new city", said, time.monotonic() - began, len({*days} - {TODAY}))
    assert len(city.runs) == 7
    began, before, week = time.monotonic(), len(city.runs), 7 * 24 * 60
    for number in range(1, 8):
        city.grew(BRONZE, day=TODAY + timedelta(days=number))
    city.tick(week + 59)
    wanted = {TODAY + timedelta(days=number) for number in range(1, 8)}
    runs = city.runs[before:]
    requested_days = {day for run in runs for day in days_of(run)}
    said = f"{len(runs)} runs: today, and {len(days_of(runs[1]))} days as one range"
    table.add("a city was off for a week", said, time.monotonic() - began, len(wanted ^ requested_days))
    assert len(runs) == 2
