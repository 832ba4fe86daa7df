"""`city up`, whole: real servers, simulators, the stream and Dagster, as a person starts them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import psutil
import pytest
import requests

from city import questdb
from city.contracts.registry import contracts
from city.lake import bronze_path
from city.settings import Settings
from city.stack.state import SUPERVISOR, read_json
from city.stack.status import status as look
from city_assets.environment.contract import SENSORS
from tests.city.alerts.test_dispatch import Hook
from tests.city.streaming.test_bridge import publisher
from tests.events import encode, iso, reading
from tests.faults import FaultTable
from tests.live import consume, until

CITY = [sys.executable, "-m", "city.cli.main"]
SENSOR, MEASURED = "downtown_traffic_999", 20
_ASSETS = "{ assetNodes { assetKey { path } assetMaterializations(limit: 1) { timestamp } } }"


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    yield server
    server.server.shutdown()


@pytest.fixture
def stack(config: Settings, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """This test starts its own, whose stream reports to the graph sooner than others do, and whose alarms go to a
    server of the test's own."""
    monkeypatch.setenv("CITY_REPORT_SECONDS", "5")
    monkeypatch.setenv("CITY_ALERT_PAGERDUTY_KEY", "the-key")
    monkeypatch.setenv("CITY_ALERT_PAGERDUTY_URL", f"{hook.url}/pagerduty")
    monkeypatch.setenv("CITY_ALERT_SLACK_URL", f"{hook.url}/slack")
    return config


def status() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        subprocess.run([*CITY, "status", "--json"], capture_output=True, check=True).stdout
    )
    return content


def workers(config: Settings) -> list[str]:
    """The metrics that say whether a worker runs."""
    lines = requests.get(f"{config.serve}/metrics", timeout=10).text.splitlines()
    return [line for line in lines if line.startswith("worker_running{")]


def materialized(config: Settings) -> set[str]:
    answer = requests.post(f"http://{config.dagster}/graphql", json={"query": _ASSETS}, timeout=20).json()
    nodes = answer["data"]["assetNodes"]
    assert len(nodes) > 10
    return {"/".join(node["assetKey"]["path"]) for node in nodes if node["assetMaterializations"]}


@pytest.mark.own_servers
def test_a_city_starts_with_one_command_tells_of_its_faults_and_stops_without_a_trace(
    stack: Settings, hook: Hook, table: FaultTable
) -> None:
    try:
        started = subprocess.run(
            [*CITY, "up", "--detach", "--rate", "100"], capture_output=True, text=True, timeout=200
        )
        assert started.returncode == 0, started.stderr
        assert "http://" in started.stdout
        deadline = time.monotonic() + 120
        wanted = {"bronze/sensors", "bronze/vehicle_positions", "bronze/devices"}
        while not (all(look(stack)["bronze_rows"].values()) and wanted <= materialized(stack)):
            assert time.monotonic() < deadline, (materialized(stack), status())
            time.sleep(1)
        report = status()
        assert {part["state"] for part in report["parts"].values()} == {"running"}
        assert {"address", "state", "events_per_second", "lag", "p95_ms", "last_error"} <= report["parts"][
            "stream"
        ].keys()
        assert report["parts"]["stream"]["events_per_second"] > 50
        for name in ("sensors", "vehicle_positions", "traffic_cells"):
            assert questdb.rows(stack.questdb, f"SELECT count() FROM {name}")[0][0] > 0
        streams = {contract.name for contract in contracts() if contract.rate == "high"}
        assert {event["kind"] for event in consume(stack, "dashboard_events")} == streams
        assert requests.get(f"{stack.serve}/health/live", timeout=10).json() == {"live": True}
        until(lambda: all(line.endswith(" 1.0") for line in workers(stack)))
        assert any('worker="simulator-environment-mqtt"' in line for line in workers(stack))
        assert not any('part="simulator-' in line for line in workers(stack)), (
            "the workers of a process are told of once"
        )
        live = requests.get(f"{stack.serve}/api/stats", timeout=10).json()["live"]
        assert live["vehicles"] > 50
        assert live["cells"] > 10
        assert hook.bodies == [], "a city that is well has nothing to tell"
        killed_and_back(stack, hook, table, "questdb", "mqtt-bridge")
        again = subprocess.run([*CITY, "up"], capture_output=True, text=True, timeout=60)
        assert again.returncode == 1
        assert "already up" in again.stderr
    finally:
        ended = subprocess.run([*CITY, "down"], capture_output=True, text=True, timeout=100)
    assert ended.stdout.strip().endswith("stopped")
    time.sleep(1)
    left = [p.cmdline() for p in psutil.process_iter() if _belongs(p, stack)]
    assert left == []


def killed_and_back(config: Settings, hook: Hook, table: FaultTable, *parts: str) -> None:
    """Kills parts of the city, and follows their alarms: to PagerDuty and Slack, acknowledged by a person, resolved
    when the part is well again. What is measured meanwhile must arrive."""
    held = (read_json(config, SUPERVISOR) or {})["parts"]
    began = time.monotonic()
    for part in parts:
        os.kill(held[part]["pid"], signal.SIGKILL)
    measure(config)

    def pages(action: str) -> dict[str, str]:
        """The incidents that PagerDuty was told of, by what they are about."""
        keys = {p["payload"]["source"]: p["dedup_key"] for p in hook.of("/pagerduty") if "payload" in p}
        notified = {p["dedup_key"] for p in hook.of("/pagerduty") if p["event_action"] == action}
        return {source: key for source, key in keys.items() if key in notified}

    causes = {f"system/{part}" for part in parts}
    until(lambda: causes <= pages("trigger").keys(), 60)
    raised = time.monotonic() - began
    assert all(any(part in body["text"] for body in hook.of("/slack")) for part in parts)
    for source in causes:
        number = pages("trigger")[source].rpartition("-")[2]
        answer = requests.post(f"{config.serve}/api/alarms/{number}/acknowledge", json={"note": "on it"}, timeout=10)
        assert answer.json()["acknowledged"]
    until(lambda: causes <= pages("acknowledge").keys())
    until(lambda: causes <= pages("resolve").keys(), 90)
    assert pages("trigger").keys() == causes, "nothing else was told"
    said = f"ended and was started again; resolved after {time.monotonic() - began:.0f} s"
    query = f"SELECT count() FROM sensors WHERE sensor_id = '{SENSOR}'"
    with contextlib.suppress(AssertionError):  # what is missing then is the table's to tell
        until(lambda: questdb.rows(config.questdb, query)[0][0] == MEASURED)
    sensors = pl.scan_delta(str(bronze_path(config.lake, SENSORS))).filter(pl.col("sensor_id") == SENSOR)
    arrived = {
        "questdb": questdb.rows(config.questdb, query)[0][0],
        "mqtt-bridge": sensors.select(pl.col("value").n_unique()).collect().item(),
    }
    for part in parts:
        table.add(f"{part} is killed", said, raised, MEASURED - arrived[part], "PagerDuty, Slack")


def measure(config: Settings) -> None:
    """Readings of a sensor of the test's own, which the broker takes while nobody passes them on."""
    client, at = publisher(config), datetime.now(UTC)
    for value in range(MEASURED):
        said = reading(timestamp=iso(at + timedelta(milliseconds=value)), sensor_id=SENSOR, value=float(value))
        client.publish("city/sensors/downtown/traffic", encode(said)[0], qos=1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def _belongs(process: psutil.Process, config: Settings) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get("CITY_HOME") == str(config.home)
    except psutil.Error:
        return False
