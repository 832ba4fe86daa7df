"""Scores in the stream: by the champion, once for each event, across a swap, a crash and a restart."""

import json
import logging
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from benchmarks.fleet import faults, simulated
from city.alerts.conditions import conditions
from city.alerts.reader import STATE, AlarmReader
from city.alerts.store import alert_store
from city.contracts.model import Contract
from city.lake.reference import commission
from city.models import champions
from city.models.champions import Champions
from city.models.model import ModelError
from city.models.registry import Registry
from city.models.train import train
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.sinks import scores as scoring
from city.streaming.sinks.scores import ScoreSink
from city_assets.equipment.contract import MAINTENANCE_LOG, SENSOR_READINGS, SIGNALS
from city_assets.equipment.models import ANOMALIES, LIFE
from simulators.world.machines import fleet
from tests.events import iso
from tests.lakes import stream as put
from tests.live import consume, send, streaming, until

BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
QUIET = fleet(1, 6)


@pytest.fixture
def contract() -> Contract:
    return replace(SENSOR_READINGS, topic=f"t{uuid.uuid4().hex[:8]}")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(champions, "POLL_SECONDS", 0.2)
    monkeypatch.setattr(scoring, "_RECORD_SECONDS", 0.5)


@pytest.fixture(scope="module")
def rows() -> tuple[pl.DataFrame, pl.DataFrame]:
    return simulated(1, 2)


def teach(config: Settings, rows: tuple[pl.DataFrame, pl.DataFrame]) -> int:
    """A new version, made champion whatever it is like."""
    registry, now = Registry(config), datetime(2026, 6, 1, tzinfo=UTC)
    made = train(ANOMALIES, rows[0], registry, data_version=1, now=now, truth=faults(rows[1]))
    registry.promote(made.version, "told to")
    return made.version.number


def readings(first: int, count: int, **wrong: float) -> list[bytes]:
    """Of a pump at half load, five seconds apart; `wrong` are factors on its signals."""
    level = QUIET[0].level
    usual = {"temperature": 20 + (level["temperature"] - 20) * 0.74, "vibration": level["vibration"] * 0.78}
    usual |= {"pressure": level["pressure"] * 0.82, "power": level["power"] * 0.66}
    stored = []
    for n in range(first, first + count):
        event: dict[str, Any] = {
            "timestamp": iso(BEGIN + timedelta(seconds=5 * n)),
            "machine_id": QUIET[0].id,
            "sensor_id": f"{QUIET[0].id}_s1",
            "readings": {name: round(value * wrong.get(name, 1.0), 3) for name, value in usual.items()},
            "metadata": {"location": QUIET[0].location, "shift": "early"},
        }
        stored.append(json.dumps(event).encode())
    return stored


def recorded(config: Settings) -> pl.DataFrame:
    return pl.read_delta(str(config.lake / "scores" / ANOMALIES.name)).sort("timestamp")


def ranges(config: Settings) -> None:
    commission(config.lake, "machine_sensors", [row for machine in QUIET for row in machine.ranges()])


def test_a_champion_is_swapped_in_the_running_stream(
    stack: Settings, contract: Contract, quick: None, rows: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    ranges(stack)
    assert teach(stack, rows) == 1
    send(stack, contract, *readings(0, 1))
    with streaming(contract, stack):
        until(lambda: pl.read_delta(str(stack.lake / "bronze" / contract.name)).height == 1)
        until(lambda: (stack.lake / "scores" / ANOMALIES.name).exists())
        send(stack, contract, *readings(1, 40))
        until(lambda: set(recorded(stack)["version"]) == {1})
        assert teach(stack, rows) == 2
        sent = 41
        while 2 not in set(recorded(stack)["version"]):
            send(stack, contract, *readings(sent, 5))
            sent += 5
            assert sent < 2_000
            until(lambda wanted=sent - 6: recorded(stack).height >= wanted)
    with streaming(contract, stack):  # and goes on where it was
        send(stack, contract, *readings(sent, 30, vibration=2.0))
        until(lambda: recorded(stack).height >= sent + 29)
    stored = recorded(stack)
    assert stored["id"].is_unique().all()
    events = [
        BEGIN.replace(microsecond=BEGIN.microsecond // 1000 * 1000) + timedelta(seconds=5 * n)
        for n in range(1, sent + 30)
    ]
    assert stored["timestamp"].to_list()[-len(events) :] == events
    assert stored["version"].is_sorted()
    assert stored.tail(20)["prediction"].unique().to_list() == ["anomaly"]
    assert (stored.head(40)["prediction"] == "normal").mean() > 0.9  # type: ignore[operator]
    messages = {m["id"]: m for m in consume(stack, "anomaly-detected") if m["id"].startswith(contract.topic)}
    assert messages.keys() == set(stored["id"])
    last = messages[stored["id"][-1]]
    assert last["is_anomaly"]
    assert last["model_version"] == 2
    assert last["anomaly_score"] > last["threshold"]
    assert sum(last["feature_contributions"].values()) == pytest.approx(1, abs=1e-4)
    assert max(SIGNALS, key=lambda name: last["feature_contributions"][name]) == "vibration"
    assert stored["latency_ms"].min() > 0  # type: ignore[operator]


def test_what_the_champion_says_of_a_fault_is_an_alarm_within_seconds_and_ends(
    stack: Settings, contract: Contract, quick: None, rows: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    config = stack.model_copy(update={"alert_domains_after": 0.0})
    machine, store = QUIET[0].id, alert_store(config)
    ranges(config)
    teach(config, rows)
    send(config, contract, *readings(0, 1))
    alarms = AlarmReader(config, conditions(config))
    with streaming(contract, config):
        until(lambda: (config.lake / "scores" / ANOMALIES.name).exists())
        alarms.start()
        try:
            until(lambda: "anomaly-detected" in store.remembered(STATE)["topics"])
            send(config, contract, *readings(1, 30))
            began = time.monotonic()
            send(config, contract, *readings(31, 30, vibration=2.0))
            alarm = until(lambda: store.alarms()[0])
            print(f"an alarm {time.monotonic() - began:.1f} s after the readings were sent")
            assert alarm.cause == f"domain/equipment/anomaly/{machine}"
            assert alarm.labels == {"machine_id": machine, "type": "machine_anomaly"}
            assert next(iter(alarm.detail["contributions"])) == "vibration"
            assert sum(alarm.detail["contributions"].values()) == pytest.approx(1, abs=0.01)
            assert f"{machine}: anomalous readings" in alarm.title
            send(config, contract, *readings(61, 40))
            until(lambda: not store.alarm(alarm.id).active)
        finally:
            alarms.stop()
    assert len(store.alarms(closed=True)) == 1


def test_what_a_crash_left_unrecorded_is_recorded_once(
    stack: Settings,
    contract: Contract,
    quick: None,
    rows: tuple[pl.DataFrame, pl.DataFrame],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scoring, "_RECORD_SECONDS", 1e9)
    ranges(stack)
    teach(stack, rows)
    events = [json.loads(message) for message in readings(0, 60)]

    def bronze() -> BronzeStream:
        loaded = BronzeStream(stack.lake, contract)
        loaded.load([0])
        return loaded

    def of(first: int, last: int) -> pl.DataFrame:
        held = pl.read_delta(str(stack.lake / "bronze" / contract.name))
        return held.filter(pl.col("_offset").is_between(first, last - 1)).sort("_offset")

    put(stack.lake, contract, events[:1], datetime.now(UTC))
    first = ScoreSink(contract, stack, bronze())
    assert first.open({}) == {0: 1}
    put(stack.lake, contract, events[1:], datetime.now(UTC))
    first.apply(of(1, 21), {0: 1}, dict)
    first._write_records()
    first.apply(of(21, 41), {0: 21}, dict)  # never recorded: the process is killed
    second = ScoreSink(contract, stack, bronze())
    assert second.open({0: 60}) == {0: 21}
    second.apply(of(11, 60), {0: 11}, dict)  # more than it needs
    second.close()
    first._champions.stop()  # type: ignore[union-attr]
    assert recorded(stack)["timestamp"].is_unique().all()
    assert recorded(stack).height == 59


def test_without_a_champion_nothing_is_said_and_events_flow(stack: Settings, contract: Contract, quick: None) -> None:
    ranges(stack)
    send(stack, contract, *readings(0, 10))
    with streaming(contract, stack) as job:
        until(lambda: job.summary()[0]["rows"] == 10 and not any(job.summary()[0]["sinks_behind"].values()))
    assert not (stack.lake / "scores").exists()


def test_a_version_that_cannot_serve_leaves_the_one_before(
    config: Settings, rows: tuple[pl.DataFrame, pl.DataFrame], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    teach(config, rows)
    serving = Champions(config, [ANOMALIES, LIFE])
    serving._registry = Registry(config)
    serving.refresh()
    assert serving.champion(ANOMALIES).number == 1  # type: ignore[union-attr]
    assert serving.champion(LIFE) is None
    teach(config, rows)
    monkeypatch.setattr(Registry, "content", lambda self, version: b"broken")
    with caplog.at_level(logging.ERROR):
        serving.refresh()
    assert "machine_anomaly version 2 cannot serve" in caplog.text
    assert serving.champion(ANOMALIES).number == 1  # type: ignore[union-attr]


def test_a_refresh_that_raises_comes_back_and_swaps_the_next_champion(
    config: Settings, rows: tuple[pl.DataFrame, pl.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(config, rows)
    serving = Champions(config, [ANOMALIES], every=0.05)
    serving.start()
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Registry, "stamp", lambda self: exec("raise SystemExit('what nobody thought of')"))
            until(lambda: serving.worker.restarts == 1)
            assert serving.worker.complaint() == "restarting (1 restarts): SystemExit: what nobody thought of"
        teach(config, rows)
        until(lambda: serving.champion(ANOMALIES).number == 2)  # type: ignore[union-attr]
        assert serving.worker.state == "running"
        assert serving.worker.complaint() == "SystemExit: what nobody thought of"  # it is told for a minute
    finally:
        serving.stop()
    assert serving.worker.state == "stopped"


def test_a_registry_that_is_away_is_said_at_the_start(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = config.model_copy(update={"mlflow_url": "http://127.0.0.1:9"})
    with pytest.raises(ModelError, match="registry at http://127.0.0.1:9 is unavailable"):
        Champions(away, [ANOMALIES]).start()


def test_only_contracts_with_models_of_their_events_are_scored(config: Settings) -> None:
    assert scoring.live_models(MAINTENANCE_LOG) == []
    assert {model.name for model in scoring.live_models(SENSOR_READINGS)} == {ANOMALIES.name, LIFE.name}
