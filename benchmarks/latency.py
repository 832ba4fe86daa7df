"""From the creation of an event to its being visible in QuestDB, and to its arrival at a consumer of
`dashboard_events`, at a steady rate."""

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import polars as pl
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks import _events
from benchmarks._stream import Stream
from city import questdb
from city.kafka import KafkaServer
from city.lake import bronze_path
from city.questdb import QuestDBServer
from city.settings import Settings, settings
from city.stack.embedded import running, settings_at
from city.streaming.topics import DASHBOARD_TOPIC, ensure_topics
from city_assets.traffic.contract import VEHICLE_POSITIONS

RATE = 1_000
SECONDS = 60
WARM_UP = 10  # the gathering time settles
PROMPT_SECONDS = 0.25


def run(tell: Callable[[str], None], rate: int = RATE, seconds: float = SECONDS) -> dict[str, Any]:
    """With the promise that is the default, and (`prompt_…`) with one of a quarter of a second."""
    figures = _run(tell, rate, seconds, {})
    prompt = _run(tell, rate, seconds, {"latency_seconds": PROMPT_SECONDS})
    kept = {f"prompt_{name}": value for name, value in prompt.items() if name.endswith("_ms")}
    return figures | {"prompt_latency_seconds": PROMPT_SECONDS} | kept


def _run(tell: Callable[[str], None], rate: int, seconds: float, changes: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        config = settings_at(Path(folder), settings().cache_folder, **changes)
        with running(config, "kafka", "questdb"):
            ensure_topics(config.kafka, [VEHICLE_POSITIONS])
            config.logs.mkdir(parents=True, exist_ok=True)
            stream = Stream(config, config.logs / "stream.log")
            try:
                return _measure(config, stream, tell, rate, seconds)
            finally:
                stream.stop()


def _measure(
    config: Settings, stream: Stream, tell: Callable[[str], None], rate: int, seconds: float
) -> dict[str, Any]:
    stream.await_caught_up()
    stop = threading.Event()
    arrivals: list[tuple[float, float]] = []
    visible: list[tuple[float, dict[int, int]]] = []
    watchers = [
        threading.Thread(target=_watch_topic, args=(config.kafka, stop, arrivals)),
        threading.Thread(target=_watch_questdb, args=(config.questdb, stop, visible)),
    ]
    for watcher in watchers:
        watcher.start()
    tell(f"{rate:,} events a second for {seconds + WARM_UP:g} s, {config.latency_seconds:g} s promised")
    _produce(config.kafka, rate, seconds + WARM_UP)
    stream.await_caught_up()
    time.sleep(1)
    stop.set()
    for watcher in watchers:
        watcher.join()
    events = pl.read_delta(str(bronze_path(config.lake, VEHICLE_POSITIONS)))
    seconds_since = pl.col("timestamp").dt.epoch("us") / 1e6
    events = events.filter(seconds_since >= seconds_since.min() + WARM_UP)
    first: float = events.select(seconds_since.min()).item()
    to_questdb = _until_visible(events, visible)
    to_dashboard = pl.Series([(at - created) * 1000 for at, created in arrivals if created >= first])
    quantiles = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
    return {
        "bench": "latency",
        "rate": rate,
        "latency_seconds": config.latency_seconds,
        "events": events.height,
        **{name: round(to_questdb.quantile(q), 1) for name, q in quantiles.items()},  # type: ignore[arg-type]
        **{f"dashboard_{name}": round(to_dashboard.quantile(q), 1) for name, q in quantiles.items()},  # type: ignore[arg-type]
        "dashboard_events": len(to_dashboard),
    }


def _until_visible(events: pl.DataFrame, visible: list[tuple[float, dict[int, int]]]) -> pl.Series:
    """Milliseconds from each event's creation to the first look at QuestDB that saw it."""
    seen = pl.DataFrame(
        [(p, offset, at) for at, offsets in visible for p, offset in offsets.items()],
        schema={"_partition": pl.Int32, "_offset": pl.Int64, "at": pl.Float64},
        orient="row",
    ).sort("_offset", "at")
    joined = events.sort("_offset").join_asof(
        seen, on="_offset", by="_partition", strategy="forward", check_sortedness=False
    )
    return ((joined["at"] - joined["timestamp"].dt.epoch("us") / 1e6) * 1000).alias("ms")


def _watch_questdb(server: QuestDBServer, stop: threading.Event, visible: list[tuple[float, dict[int, int]]]) -> None:
    recent = f"SELECT part, max(off) FROM {VEHICLE_POSITIONS.name} WHERE timestamp > dateadd('s', -20, now())"
    while not stop.is_set():
        rows = questdb.rows(server, recent)
        visible.append((time.time(), {int(part): int(offset) for part, offset in rows if part is not None}))
        stop.wait(0.02)


def _watch_topic(kafka: KafkaServer, stop: threading.Event, arrivals: list[tuple[float, float]]) -> None:
    consumer = Consumer(kafka.options({"group.id": "latency", "auto.offset.reset": "earliest"}))
    partitions = consumer.list_topics(DASHBOARD_TOPIC).topics[DASHBOARD_TOPIC].partitions
    consumer.assign([TopicPartition(DASHBOARD_TOPIC, p, 0) for p in partitions])
    raw: list[tuple[float, bytes]] = []
    while not stop.is_set():
        messages = consumer.consume(1000, 0.02)
        now = time.time()
        raw += [(now, message.value() or b"") for message in messages if message.error() is None]
    consumer.close()
    times = pl.Series([orjson.loads(value)["timestamp"] for _, value in raw], dtype=pl.String)
    created = times.str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us").dt.epoch("us") / 1e6
    arrivals += zip([at for at, _ in raw], created.to_list(), strict=True)


def _produce(kafka: KafkaServer, rate: int, seconds: float) -> None:
    producer = Producer(kafka.options({"linger.ms": 5}))
    began = time.monotonic()
    for count, (key, message, _) in enumerate(_events.messages(int(rate * seconds), stamp_every=1), 1):
        producer.produce(VEHICLE_POSITIONS.topic, message, key)
        ahead = count / rate - (time.monotonic() - began)
        if ahead > 0.005:
            producer.poll(0)
            time.sleep(ahead)
    producer.flush(30)
