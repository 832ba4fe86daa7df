"""How fast messages become events on one core: of a plain contract, of a mapped source, and of a source with three
measures in each message."""

import json
import os
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

MESSAGES, ROUNDS = 50_000, 7
NOW = datetime(2026, 11, 27, 15, tzinfo=UTC)


def run(report: Callable[[str], None], messages: int = MESSAGES, rounds: int = ROUNDS) -> dict[str, Any]:
    """Messages and events a second of each, the median of rounds in turn. Polars has one thread."""
    os.environ["POLARS_MAX_THREADS"] = "1"  # before it is imported
    from city.contracts import validity
    from city.sources.mapping import map_messages
    from city.streaming.decode import decode
    from city.streaming.records import RawBatch
    from city_assets.environment.contract import SENSORS
    from city_assets.environment.sources import CITY_ENVIRONMENT, ZIGBEE2MQTT

    if os.environ.get("OMP_NUM_THREADS") != "1":
        report("set OMP_NUM_THREADS=1 for the figure of one core")
    times = [(NOW + timedelta(milliseconds=n)).isoformat().replace("+00:00", "Z") for n in range(messages)]

    def plain(n: int) -> dict[str, Any]:
        named = {"sensor_id": f"downtown_noise_{n % 100}", "type": "noise", "location": "downtown", "unit": "dB"}
        return {"timestamp": times[n], **named, "value": 40 + n % 400 / 10}

    def zigbee(n: int) -> dict[str, Any]:
        return {"temperature": 20 + n % 100 / 10, "battery": 95, "linkquality": n % 200, "last_seen": times[n]}

    def monitor(n: int) -> dict[str, Any]:
        named = {"type": "environment", "sensor_id": f"env_{n % 100}", "timestamp": times[n]}
        return {**named, "temperature": 20 + n % 100 / 10, "humidity": n % 90, "air_quality_index": n % 300}

    texts = {
        kind.__name__: [json.dumps(kind(n)).encode() for n in range(messages)] for kind in (plain, zigbee, monitor)
    }
    arrived = np.full(messages, int((NOW + timedelta(hours=1)).timestamp() * 1e6), np.int64)
    offsets = np.arange(messages, dtype=np.int64)
    raw = RawBatch([*texts["plain"]], np.zeros(messages, np.int32), offsets, arrived, {0: 0}, {0: messages})
    topics = [f"zigbee2mqtt/sensor_{n % 100}" for n in range(messages)]
    now = NOW + timedelta(hours=1)

    def mapped(source: Any, payloads: list[bytes], at: list[str]) -> int:
        events = map_messages(source, payloads, at, "UTC", now).events
        valid, _ = validity.split(source.contract, events.with_columns(_arrived=now))  # as decode does
        return valid.height

    ways: dict[str, Callable[[], int]] = {
        "plain": lambda: decode(SENSORS, raw, {})[0].height,
        "mapped": lambda: mapped(ZIGBEE2MQTT, texts["zigbee"], topics),
        "three_measures": lambda: mapped(CITY_ENVIRONMENT, texts["monitor"], topics),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    events = {name: way() for name, way in ways.items()}  # the first call of each compiles its expressions
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.process_time()
            way()
            seconds[name].append(time.process_time() - began)
    figures: dict[str, Any] = {"bench": "decode", "messages": messages}
    for name in ways:
        median = statistics.median(seconds[name])
        figures[name] = {"messages_s": round(messages / median), "events_s": round(events[name] / median)}
        report(f"{name}: {figures[name]['messages_s']:,} messages/s, {figures[name]['events_s']:,} events/s")
    figures["mapped_to_plain"] = round(figures["mapped"]["messages_s"] / figures["plain"]["messages_s"], 2)
    return figures
