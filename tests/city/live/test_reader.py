"""The live city over WebSockets, through a real Kafka: what is shown, what is resumed, and who is slow."""

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import requests
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewPartitions
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from benchmarks.serve import serving as process
from city.live.layer_state import State
from city.live.layers import Layer
from city.live.reader import Live
from city.models.examples import inputs
from city.models.exported import Exported
from city.models.registry import Registry
from city.serving.versions import Versions
from city.settings import Settings
from city.stack.embedded import free_ports
from city.streaming import topic_reader
from city.streaming.sinks.kafka import DASHBOARD_TOPIC
from city.streaming.topics import ensure_topics
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.models import CONGESTION, MODELS
from tests.city.serving.served import ROWS, put_features, registered, taught
from tests.events import iso
from tests.live import until

CELL = "88194ad14dfffff"  # where no other test's vehicles drive
SERVE = [sys.executable, "-m", "city.cli.main", "serve"]


class Feed:
    """Publishes what the stream would: vehicles twice a second, and a window of a cell."""

    def __init__(self, config: Settings, vehicles: int) -> None:
        self._producer, self._vehicles = Producer({"bootstrap.servers": str(config.kafka)}), vehicles
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Feed":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._producer.flush(5)

    def _run(self) -> None:
        step = 0
        while not self._stop.wait(0.5):
            step += 1
            now = datetime.now(UTC)
            for number in range(self._vehicles):
                place = {"longitude": -73.98 + step * 1e-4, "latitude": 40.75 + number * 1e-4}
                self.send(
                    {"kind": "vehicle_positions", "vehicle_id": f"v{number}", "timestamp": iso(now), "speed": 20.0}
                    | place
                )
            self.window(now - timedelta(minutes=2), step)

    def window(self, start: datetime, count: int) -> None:
        aggregates = {"vehicle_count": count, "positions": count, "speed_mean": 9.5, "speed_std": 1.0}
        content = {"kind": "traffic_cells", "window_start": iso(start), "cell": CELL} | aggregates
        self._producer.produce("city.processed.traffic", orjson.dumps(content))

    def send(self, content: dict[str, Any], topic: str = DASHBOARD_TOPIC) -> None:
        self._producer.produce(topic, orjson.dumps(content))
        self._producer.poll(0)


@pytest.fixture
def live(stack: Settings) -> Iterator[tuple[str, Settings]]:
    config = stack.model_copy(update={"serve_port": free_ports(1)[0]})
    ensure_topics(config.kafka, [VEHICLE_POSITIONS], ["anomaly-detected"])
    registry = Registry(config)
    for model in (CONGESTION, MODELS[-1]):
        registered(registry, model, taught(model))
    put_features(config, CELL)
    with process(config, SERVE) as port:
        yield f"ws://127.0.0.1:{port}/ws/stream", config


def read(socket: Any, count: int) -> list[dict[str, Any]]:
    return [json.loads(socket.recv(timeout=10)) for _ in range(count)]


def test_what_is_live_is_shown_predicted_resumed_and_gone_through(live: tuple[str, Settings]) -> None:
    url, config = live
    http = url.replace("ws://", "http://").removesuffix("/ws/stream")
    with Feed(config, 40) as feed:
        feed.send({"machine_id": "pump_001", "id": "sensor-readings-0-1", "is_anomaly": True}, "anomaly-detected")
        current = f"{http}/api/current-traffic"  # other tests' cells may be there too
        cells = until(lambda: [c for c in requests.get(current, timeout=10).json()["cells"] if c["cell"] == CELL], 60)
        assert cells[0]["congestion"] == "high"
        (ahead,) = until(
            lambda: [c for c in _cells(http) if c["cell"] == CELL and c["congestion_15"] and c["speed_15"]]
        )
        row = ROWS.drop_nulls().head(1)  # the cell's features, as `put_features` has written them
        (shares,) = Exported(CONGESTION, taught(CONGESTION)).predict(inputs(CONGESTION, row))
        assert ahead["congestion_15"] == CONGESTION.label.classes[int(shares.argmax())]
        hotspots = requests.get(f"{http}/api/hotspots?count=100", timeout=10).json()["hotspots"]
        assert CELL in [spot["cell"] for spot in hotspots]
        until(lambda: _workers(http)["domain alarms"]["state"] == "running")
        one = requests.get(f"{http}/api/cell/{CELL}", timeout=20).json()
        assert one["features"]["speed_mean"] is not None
        by_model = {p["model"]: p for p in one["predictions"]}
        assert by_model["traffic_speed_15"]["low"] < float(by_model["traffic_speed_15"]["prediction"])
        assert by_model["traffic_speed_5"]["version"] is None

        with connect(url, max_size=None) as socket:
            messages = read(socket, 6)
        whole = messages[0]
        assert whole["type"] == "snapshot"
        assert len(whole["layers"]["vehicles"]["rows"]) >= 40
        scores = {row["id"]: row for row in whole["layers"]["scores"]["rows"]}
        assert scores["sensor-readings-0-1"]["model"] == "machine_anomaly"
        sequence = [message["seq"] for message in messages]
        assert sequence == list(range(sequence[0], sequence[0] + 6))
        columns = whole["layers"]["vehicles"]["columns"]
        moved = [row for m in messages[1:] for row in m["layers"].get("vehicles", {}).get("rows", []) if row[0] == "v1"]
        places = [row[columns.index("longitude")] for row in moved]
        assert places == sorted(set(places))
        assert len(places) >= 3

        last = messages[-1]
        with connect(f"{url}?since={last['seq']}&epoch={last['epoch']}", max_size=None) as socket:
            again = read(socket, 2)
        assert [m["type"] for m in again] == ["delta", "delta"]
        assert again[0]["seq"] == last["seq"] + 1
        with connect(f"{url}?since={last['seq']}&epoch=ffffffff&layers=cells", max_size=None) as socket:
            other = read(socket, 1)[0]
        assert other["type"] == "snapshot"
        assert list(other["layers"]) == ["cells"]
        with pytest.raises(InvalidStatus, match="422"), connect(f"{url}?layers=nothing"):
            pass
        with pytest.raises(InvalidStatus, match="403"), connect(url, origin="https://evil.example.org"):  # type: ignore[arg-type]
            pass


def _workers(http: str) -> dict[str, dict[str, Any]]:
    return {worker["name"]: worker for worker in requests.get(f"{http}/health", timeout=20).json()["workers"]}


def _cells(http: str) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = requests.get(f"{http}/api/live/cells", timeout=10).json()["rows"]
    return cells


def test_five_hundred_listen_and_ten_that_never_read_hold_up_nobody(live: tuple[str, Settings]) -> None:
    url, config = live
    with Feed(config, 300):
        argv = [sys.executable, "-m", "benchmarks._listen", url, "10", "490", "10"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        content = json.loads(done.stdout)
        print(content)
        assert content["p95_ms"] < 2_000
        assert content["lost"] == content["missed"] == 0
        assert content["least"] >= 15  # of twenty that were made
        metrics = url.replace("ws://", "http://").replace("/ws/stream", "/metrics")
        until(lambda: "\nwebsocket_clients 0.0\n" in requests.get(metrics, timeout=10).text)  # all have gone


def test_rows_settle_go_and_are_never_older_than_they_were() -> None:
    now = 1_800_000_000_000.0
    layer = Layer("cells", "w", "cell", "t", ("n",), "", settle=timedelta(seconds=40), ttl=timedelta(minutes=8))
    state = State(layer)
    state.take(["a", int(now - 120_000), 5], now)
    state.take(["a", int(now - 10_000), 1], now)  # has just begun: the one before stays
    assert state.rows["a"][2] == 5
    state.pass_time(now + 31_000)
    assert state.rows["a"][2] == 1
    state.take(["a", int(now - 120_000), 6], now)  # a late event of the window before
    assert state.rows["a"][2] == 1
    assert orjson.loads(state.delta() or b"")["rows"] == [["a", int(now - 10_000), 1]]
    assert state.delta() is None
    state.pass_time(now + 600_000)
    assert orjson.loads(state.delta() or b"") == {"rows": [], "gone": ["a"]}
    state.take(["b", int(now), 1], now + 600_000)  # older than its time to live
    assert not state.rows
    predicted = State(replace(layer, predictions={"p": "m"}, settle=timedelta()))
    predicted.take(["a", int(now), 5, None], now)
    predicted.set_predictions("a", [1.5])
    predicted.take(["a", int(now) + 1, 6, None], now)  # what was predicted stays until it is predicted anew
    assert predicted.rows["a"] == ["a", int(now) + 1, 6, 1.5]


class Watched:
    """A picture of one layer, of a topic of its own."""

    def __init__(self, stack: Settings) -> None:
        self.topic, self.feed = f"live-{uuid.uuid4().hex[:8]}", f"feed-{uuid.uuid4().hex[:8]}"
        ensure_topics(stack.kafka, [], [self.topic, self.feed])
        layer = Layer("things", "thing", "name", "timestamp", ("n",), "Things.", topic=self.topic)
        self.live = Live(stack, [layer], {self.feed: "m"}, {}, Versions(stack, {}, ThreadPoolExecutor(1)))
        self._producer = Producer({"bootstrap.servers": str(stack.kafka)})
        self.live.start(lambda delta: None)

    def send(self, name: str, partition: int = 0) -> None:
        self.raw(orjson.dumps({"kind": "thing", "name": name, "timestamp": iso(datetime.now(UTC)), "n": 1}), partition)

    def raw(self, content: bytes | None, partition: int = 0, topic: str | None = None) -> None:
        self._producer.produce(topic or self.topic, content, partition=partition)
        assert self._producer.flush(10) == 0

    def shows(self, *names: str) -> None:
        until(lambda: set(names) <= set(self.live.states["things"].rows))


@pytest.fixture
def watched(stack: Settings) -> Iterator[Watched]:
    made = Watched(stack)
    yield made
    made.live.stop()


def test_a_picture_that_raises_is_drawn_again_by_another_consumer(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = watched.live
    watched.raw(b'{"id": 1}', topic=watched.feed)
    watched.send("before")
    watched.shows("before")
    until(lambda: len(live.scores()) == 1)
    with monkeypatch.context() as patched:
        patched.setattr(live, "_publish_changes", lambda: exec("raise SystemExit('what nobody thought of')"))
        until(lambda: live.worker.restarts)
        watched.send("meanwhile")
    watched.send("after")
    watched.shows("meanwhile", "after")
    until(lambda: live.worker.state == "running")
    assert "what nobody thought of" in str(live.worker.complaint())
    watched.raw(b'{"id": 2}', topic=watched.feed)
    until(lambda: len(live.scores()) >= 2)
    assert [score["id"] for score in live.scores()] == [1, 2]  # it goes on where it was


def test_no_message_stops_the_picture(watched: Watched) -> None:
    for content in (None, b"", b"\xff", b"[1]", b'"x"', b"{}", b'{"kind": []}', b'{"kind": "thing", "name": {}}'):
        watched.raw(content)
        watched.raw(content, topic=watched.feed)
    watched.raw(b'{"kind": "thing", "name": ["unhashable"], "timestamp": "%s"}' % iso(datetime.now(UTC)).encode())
    watched.raw(b'{"kind": "thing", "name": "n", "timestamp": 5}')
    watched.send("good")
    watched.shows("good")
    assert watched.live.worker.restarts == 0
    assert watched.live.snapshot().fragments


def test_a_partition_that_is_added_is_read(watched: Watched, stack: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert topic_reader._LOOK_AGAIN_SECONDS <= 30
    monkeypatch.setattr(topic_reader, "_LOOK_AGAIN_SECONDS", 1.0)
    watched.send("first")
    watched.shows("first")
    admin = AdminClient({"bootstrap.servers": str(stack.kafka)})
    for future in admin.create_partitions([NewPartitions(watched.topic, 5)]).values():
        future.result(10)
    until(lambda: len(admin.list_topics(watched.topic).topics[watched.topic].partitions) == 5)
    watched._producer = Producer({"bootstrap.servers": str(stack.kafka)})  # the one before does not know of it yet
    watched.send("in the new one", partition=4)
    watched.shows("in the new one")
    assert watched.live.worker.restarts == 0


def test_what_could_not_be_assigned_is_assigned_later(stack: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error between the look and the assignment leaves nothing that is believed to be read."""
    failed: list[Any] = []

    class Failing(Consumer):  # type: ignore[misc]
        def incremental_assign(self, partitions: Any) -> None:
            if not failed:
                failed.append(partitions)
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            super().incremental_assign(partitions)

    monkeypatch.setattr(topic_reader, "Consumer", Failing)
    watched = Watched(stack)
    try:
        watched.send("later")
        watched.shows("later")
        assert len(failed) == 1
    finally:
        watched.live.stop()
