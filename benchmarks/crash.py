"""Kills the streaming job again and again while events arrive, and then counts.

Every third restart begins while the old copy still runs: one of the two must be fenced off, and say so, and the
other go on.
"""

import random
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from confluent_kafka import Producer

from benchmarks import _events
from benchmarks._stream import Stream
from city import questdb
from city.kafka import KafkaServer
from city.lake import bronze_path, quarantine_path
from city.questdb import QuestDBServer
from city.settings import Settings, settings
from city.stack.embedded import running, settings_at
from city.streaming.topics import ensure_topics
from city.streaming.windows import compute
from city_assets.traffic.contract import VEHICLE_POSITIONS

KILLS = 24
RATE = 2_000
BROKEN_IN = 50
_WINDOW = VEHICLE_POSITIONS.windows[0]


def run(tell: Callable[[str], None], kills: int = KILLS, rate: int = RATE) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        config = settings_at(Path(folder), settings().cache_folder)
        with running(config, "kafka", "questdb"):
            return {"bench": "crash"} | crash(config, tell, kills, rate)


def crash(config: Settings, tell: Callable[[str], None], kills: int, rate: int, seed: int = 0) -> dict[str, Any]:
    """Runs on a Kafka and a QuestDB that are up; what was sent, what was found, and what is wrong with it."""
    ensure_topics(config.kafka, [VEHICLE_POSITIONS])
    sent = Sent()
    producing = threading.Event()
    producer = threading.Thread(target=_produce, args=(config.kafka, rate, producing, sent))
    producer.start()
    try:
        done, fenced = _kill_often(config, tell, kills, random.Random(seed))
    finally:
        producing.set()
        producer.join()
    tell(f"{len(sent.valid):,} events sent; catching up")
    last = Stream(config, config.logs / "last.log")
    try:
        last.await_caught_up()
    finally:
        last.stop()
    return {"kills": done, "fenced": fenced} | verify(config, sent)


@dataclass
class Sent:
    """What the producer sent: the trips of valid events, the raw bytes of broken ones."""

    valid: list[str] = field(default_factory=list)
    broken: list[bytes] = field(default_factory=list)


def verify(config: Settings, sent: Sent) -> dict[str, Any]:
    """Every valid event once in bronze, in QuestDB and in the windows; every broken one once in quarantine."""
    bronze = pl.read_delta(str(bronze_path(config.lake, VEHICLE_POSITIONS)))
    quarantine = pl.read_delta(str(quarantine_path(config.lake, VEHICLE_POSITIONS)))
    _await_applied(config.questdb)
    live = [row[0] for row in questdb.rows(config.questdb, f"SELECT trip_id FROM {VEHICLE_POSITIONS.name}")]
    wrong = windows_wrong(config, bronze)
    lost, duplicated = count_faults(sent, bronze["trip_id"].to_list(), live, quarantine)
    return {
        "produced": len(sent.valid) + len(sent.broken),
        "lost": lost,
        "duplicated": duplicated,
        "bronze": bronze.height,
        "questdb": len(live),
        "quarantined": quarantine.height,
        "windows": len(questdb.rows(config.questdb, f"SELECT window_start FROM {_WINDOW.name}")),
        "windows_wrong": wrong,
    }


def count_faults(sent: Sent, bronze: list[str], live: list[str], quarantine: pl.DataFrame) -> tuple[int, int]:
    """Counts what is missing, and what is there more than once, over bronze, QuestDB (`live`) and the quarantine.

    `bronze` and `live` have the trip of each row. `quarantine` has `partition`, `offset` and `raw`.
    """
    lost = sum(len(set(sent.valid) - set(trips)) for trips in (bronze, live))
    lost += len(set(sent.broken) - set(quarantine["raw"]))
    duplicated = sum(len(trips) - len(set(trips)) for trips in (bronze, live))
    duplicated += quarantine.height - quarantine.select("partition", "offset").unique().height
    return lost, duplicated


def windows_wrong(config: Settings, bronze: pl.DataFrame) -> int:
    """How many windows of QuestDB differ from those computed from the whole of bronze, or are not there."""
    names = ["window_start", _WINDOW.by, *(aggregate.name for aggregate in _WINDOW.aggregates)]
    rows = questdb.rows(config.questdb, f"SELECT {', '.join(names)} FROM {_WINDOW.name}")
    live = pl.DataFrame(rows, schema=names, orient="row").with_columns(
        pl.col("window_start").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us").dt.replace_time_zone("UTC")
    )
    wanted = compute(VEHICLE_POSITIONS, _WINDOW, bronze)
    both = wanted.join(live, on=["window_start", _WINDOW.by], how="full", suffix="_live")
    same = pl.all_horizontal(
        pl.col(name).eq_missing(pl.col(f"{name}_live"))
        | ((pl.col(name) - pl.col(f"{name}_live")).abs() < 1e-6).fill_null(False)
        for name in names[2:]
    )
    return both.filter(~same | pl.col("window_start").is_null() | pl.col("window_start_live").is_null()).height


def _kill_often(config: Settings, tell: Callable[[str], None], kills: int, chance: random.Random) -> tuple[int, int]:
    done = fenced = number = 0
    config.logs.mkdir(parents=True, exist_ok=True)
    stream = Stream(config, config.logs / "stream-0.log")
    while done < kills:
        time.sleep(chance.uniform(0.5, 5.0))
        number += 1
        if number % 3 == 0:
            other = Stream(config, config.logs / f"stream-{number}.log")
            loser = _await_fenced(stream, other)
            fenced += loser.said("Fenced")
            stream = other if loser is stream else stream
            stream.await_rows()
            time.sleep(chance.uniform(0.0, 0.5))
        stream.kill()
        done += 1
        tell(f"kill {done} of {kills}, {fenced} fenced off")
        stream = Stream(config, config.logs / f"stream-{number}-after.log")
    stream.kill()
    return done, fenced


def _await_fenced(old: Stream, new: Stream, seconds: float = 60) -> Stream:
    """The one of two copies that ends. Raises TimeoutError when both go on."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for stream in (old, new):
            if stream.ended():
                return stream
        time.sleep(0.02)
    raise TimeoutError("two copies of the stream ran beside each other and neither was fenced off")


def _produce(kafka: KafkaServer, rate: int, stop: threading.Event, sent: Sent) -> None:
    producer = Producer(kafka.options({"linger.ms": 5}))
    began = time.monotonic()
    for number, (key, message, valid) in enumerate(_events.messages(10**9, BROKEN_IN, stamp_every=1)):
        producer.produce(VEHICLE_POSITIONS.topic, message, key)
        if valid:
            sent.valid.append(f"trip_{number:08d}")
        else:
            sent.broken.append(message)
        ahead = (number + 1) / rate - (time.monotonic() - began)
        if ahead > 0.02:
            producer.poll(0)
            time.sleep(ahead)
        if stop.is_set():
            break
    if producer.flush(60):
        raise RuntimeError("Kafka did not take every message within a minute")


def _await_applied(server: QuestDBServer, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while questdb.rows(server, "SELECT count() FROM wal_tables() WHERE writerTxn < sequencerTxn")[0][0]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"QuestDB did not apply what it was sent within {seconds:g} s")
        time.sleep(0.1)
