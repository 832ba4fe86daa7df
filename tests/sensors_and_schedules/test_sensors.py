import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import dagster as dg
import psutil
import pytest

from city.settings import Settings, settings
from city.stack.state import identity
from city.stack.status import status
from city.streaming.job import StreamJob
from city_assets import keys
from city_assets.environment.contract import DEVICES
from city_assets.streaming import stream_job
from city_assets.traffic.contract import VEHICLE_POSITIONS
from resources.kafka import KafkaResource
from resources.lake import LakeResource
from sensors_and_schedules import low_rate_topics
from sensors_and_schedules.keep_streaming import keep_streaming
from sensors_and_schedules.low_rate_topics import low_rate_sensor
from tests.city_assets.test_bronze import MemoryKafka, announcements, materialize

module = import_module("sensors_and_schedules.keep_streaming")


@pytest.fixture
def instance() -> Any:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def report(config: Settings, **changes: Any) -> None:
    content = identity() | {"at": time.time(), "ended": False, "failure": None, "streams": []} | changes
    config.run.mkdir(parents=True, exist_ok=True)
    (config.run / "stream.json").write_text(json.dumps(content))


def evaluate_keep_streaming(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    lake = LakeResource(path=str(settings().lake))
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"lake": lake})
    result = keep_streaming(context)
    assert isinstance(result, dg.SensorResult)
    return result


def tick(instance: dg.DagsterInstance) -> Any:
    """The request of a run, or the reason why none is wanted."""
    result = evaluate_keep_streaming(instance)
    return result.run_requests[0] if result.run_requests else result.skip_reason


def active_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    return instance.create_run_for_job(stream_job, status=dg.DagsterRunStatus.STARTED)


def test_a_run_is_requested_when_none_streams(config: Settings, instance: dg.DagsterInstance) -> None:
    assert isinstance(tick(instance), dg.RunRequest)
    report(config, ended=True)
    assert isinstance(tick(instance), dg.RunRequest)


def test_none_is_requested_while_one_streams(config: Settings, instance: dg.DagsterInstance) -> None:
    run = active_run(instance)
    assert run.run_id in tick(instance).skip_message  # it has just been started and has not reported yet
    report(config)
    assert run.run_id in tick(instance).skip_message


def test_a_stream_outside_dagster_is_left_alone(config: Settings, instance: dg.DagsterInstance) -> None:
    report(config)
    assert "outside Dagster" in tick(instance).skip_message


def test_a_run_whose_process_is_gone_is_replaced(
    config: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = active_run(instance)
    report(config, pid=999_999_999)
    monkeypatch.setattr(module, "_START_SECONDS", 0)
    assert isinstance(tick(instance), dg.RunRequest)
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELED  # type: ignore[union-attr]


@pytest.fixture
def paused(config: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A stream's process that was stopped (SIGSTOP) after its last report."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    created = psutil.Process(process.pid).create_time()
    os.kill(process.pid, signal.SIGSTOP)
    report(config, pid=process.pid, created=created, at=time.time() - 20)
    yield process
    process.kill()
    process.wait()


def test_a_stream_that_is_paused_is_neither_replaced_nor_failed(
    config: Settings, instance: dg.DagsterInstance, paused: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = active_run(instance)
    monkeypatch.setattr(module, "_START_SECONDS", 0)
    said = tick(instance).skip_message
    assert run.run_id in said
    assert "makes no progress for 20 s" in said
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]
    assert paused.poll() is None
    part = status(config)["parts"]["stream"]
    assert (part["state"], part["last_error"]) == (
        "running",
        f"no progress for 20 s: its process {paused.pid} lives and does not report",
    )


def test_one_that_hangs_for_minutes_is_ended_before_it_is_replaced(
    config: Settings, instance: dg.DagsterInstance, paused: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TICK_SECONDS", 100)
    monkeypatch.setattr(module, "_END_SECONDS", 0.5)
    content = json.loads((config.run / "stream.json").read_text())
    report(config, **content | {"at": time.time() - 5_000})  # as after a night in which the machine slept
    cursor = None
    for _ in range(2):
        result = evaluate_keep_streaming(instance, cursor)
        assert result.skip_reason
        assert paused.poll() is None
        cursor = result.cursor
    assert evaluate_keep_streaming(instance, cursor).run_requests
    assert not psutil.pid_exists(paused.pid)


def supervise(config: Settings, *parts: str) -> None:
    config.run.mkdir(parents=True, exist_ok=True)
    state = identity() | {"at": time.time(), "stopping": False, "parts": {name: {"pid": 1} for name in parts}}
    (config.run / "supervisor.json").write_text(json.dumps(state))


def test_none_is_requested_where_the_supervisor_runs_the_stream(config: Settings, instance: dg.DagsterInstance) -> None:
    supervise(config, "kafka", "stream")
    assert tick(instance).skip_message == "`city up` starts the stream"
    report(config)
    assert tick(instance).skip_message == "the stream of `city up` streams"
    report(config, ended=True)
    assert tick(instance).skip_message == "`city up` starts the stream"
    supervise(config, "kafka")  # only low-rate domains
    assert isinstance(tick(instance), dg.RunRequest)


def test_runs_from_before_the_supervisors_stream_are_cancelled(config: Settings, instance: dg.DagsterInstance) -> None:
    runs = [
        instance.create_run_for_job(stream_job, status=status)
        for status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED)
    ]
    supervise(config, "stream")
    report(config)
    assert tick(instance).skip_message == "the stream of `city up` streams"
    for run in runs:
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELED  # type: ignore[union-attr]
    result = stream_job.execute_in_process(instance=instance)  # one that was launched a moment before
    assert result.success


def test_what_the_stream_wrote_is_reported_also_after_its_end(config: Settings, instance: dg.DagsterInstance) -> None:
    grown = {VEHICLE_POSITIONS.topic: {"bronze": {"2026-05-01": 1.0}}}
    job = StreamJob([VEHICLE_POSITIONS], config)
    report(config, ended=True, streams=job.summary(), grown=grown)
    result = evaluate_keep_streaming(instance)
    assert [(event.asset_key, event.partition) for event in result.asset_events] == [
        (keys.bronze(VEHICLE_POSITIONS), "2026-05-01")
    ]
    assert result.run_requests
    assert evaluate_keep_streaming(instance, result.cursor).asset_events == [], "CITY_REPORT_SECONDS have not passed"


def test_the_cursor_of_an_earlier_release_is_no_obstacle(config: Settings, instance: dg.DagsterInstance) -> None:
    report(config)
    assert evaluate_keep_streaming(instance, json.dumps({"at": 5.0, "ticks": 3})).skip_reason


def test_a_run_that_waits_in_the_queue_keeps_its_place(
    config: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = instance.create_run_for_job(stream_job, status=dg.DagsterRunStatus.NOT_STARTED)
    monkeypatch.setattr(module, "_START_SECONDS", 0)
    assert run.run_id in tick(instance).skip_message
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.NOT_STARTED  # type: ignore[union-attr]
    assert int(stream_job.tags["dagster/priority"]) > 0


def evaluate(lake: LakeResource, kafka: KafkaResource, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    sensor = low_rate_sensor([DEVICES])
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"lake": lake, "kafka": kafka})
    return sensor(context)


def test_new_messages_become_one_run_with_a_key_of_their_own(config: Settings, instance: dg.DagsterInstance) -> None:
    lake, kafka = LakeResource(path=str(config.lake)), MemoryKafka(address="", messages=announcements(5))
    result = evaluate(lake, kafka, instance)
    (request,) = result.run_requests
    assert request.run_key == "city.devices@0:0"
    end = request.run_config["ops"]["ingest_devices"]["config"]["end"]
    assert end == {"0": 5}
    materialize(lake, kafka, end)
    assert "nothing new" in evaluate(lake, kafka, instance, result.cursor).skip_message
    more = MemoryKafka(address="", messages=announcements(8))
    assert "gathering for another" in evaluate(lake, more, instance, result.cursor).skip_message
    later = json.dumps(json.loads(result.cursor) | {"at": time.time() - config.gather_seconds})
    assert evaluate(lake, more, instance, later).run_requests[0].run_key == "city.devices@0:5"


def test_a_run_that_failed_is_tried_again_and_one_under_way_is_not(
    config: Settings, instance: dg.DagsterInstance
) -> None:
    lake, kafka = LakeResource(path=str(config.lake)), MemoryKafka(address="", messages=announcements(5))
    cursor = evaluate(lake, kafka, instance).cursor
    again = evaluate(lake, kafka, instance, cursor)
    assert again.run_requests[0].run_key == "city.devices@0:0#1"
    assert "gathering for another" in evaluate(lake, kafka, instance, again.cursor).skip_message, "not in a loop"

    @dg.job(name=low_rate_topics.JOB)
    def under_way() -> None: ...

    instance.create_run_for_job(under_way, status=dg.DagsterRunStatus.STARTED)
    assert "under way" in evaluate(lake, kafka, instance, cursor).skip_message


def test_a_kafka_that_is_away_is_said_and_asked_again(config: Settings, instance: dg.DagsterInstance) -> None:
    lake, away = LakeResource(path=str(config.lake)), KafkaResource(address="127.0.0.1:1", seconds=1)
    assert "is unavailable" in evaluate(lake, away, instance).skip_message
