"""Our hot path and Spark Structured Streaming read the same topic into a Delta table, at the same batch size.

Both rates leave out the first batch, in which Spark compiles its code and we open connections, and count from its
commit to the last one. The peak memory is that of our process.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import _events
from city.java import jars
from city.lake.engines import spark
from city.settings import Settings, settings
from city.stack.embedded import environment, running, settings_at
from city.streaming.topics import ensure_topics
from city_assets.traffic.contract import VEHICLE_POSITIONS

EVENTS = 3_000_000
SPARK_EVENTS = 1_500_000
BATCH = 100_000
BROKEN_IN = 10_000
ROUNDS = 3


def run(
    tell: Callable[[str], None], events: int = EVENTS, spark_events: int = SPARK_EVENTS, rounds: int = ROUNDS
) -> dict[str, Any]:
    """Medians of `rounds` rounds, each of our consumer doing nothing, bronze alone, the full path and Spark. Spark's
    keys are null where it is not installed (`make spark`)."""
    with tempfile.TemporaryDirectory() as folder:
        base = settings_at(Path(folder), settings().cache_folder, batch_rows=BATCH)
        with running(base, "kafka", "questdb"):
            ensure_topics(base.kafka, [VEHICLE_POSITIONS])
            tell(f"producing {events:,} events")
            valid, broken = _events.produce(base.kafka, _events.messages(events, BROKEN_IN))
            results: dict[str, list[float]] = {"client": [], "bronze": [], "full": [], "spark": []}
            peak = 0.0
            for number in range(rounds):
                for name in ("client", "bronze", "full", "spark"):
                    home = Path(folder) / f"{name}-{number}"
                    figures = _measure(name, base, home, events, spark_events, valid, broken)
                    if figures is None:
                        continue
                    tell(f"{name}: {figures['events_per_second']:,.0f} events/s, peak {figures['peak_mb']:,.0f} MB")
                    results[name].append(figures["events_per_second"])
                    peak = max(peak, figures["peak_mb"]) if name == "bronze" else peak
    client = _median(results["client"])
    ours, full = _median(results["bronze"]), _median(results["full"])
    spark = _median(results["spark"]) if results["spark"] else None
    return {
        "bench": "ingest",
        "events": events,
        "batch": BATCH,
        "broken": broken,
        "events_per_second": round(ours),
        "full_events_per_second": round(full),
        "client_events_per_second": round(client),
        "share_of_client": round(ours / client, 2),
        "spark_events_per_second": round(spark) if spark else None,
        "ratio": round(ours / spark, 2) if spark else None,
        "full_ratio": round(full / spark, 2) if spark else None,
        "peak_mb": round(peak),
    }


def _measure(
    name: str, base: Settings, home: Path, events: int, spark_events: int, valid: int, broken: int
) -> dict[str, float] | None:
    config = base.model_copy(update={"home": home})
    if name == "spark":
        return _spark(config, spark_events) if spark.is_installed() else None
    command = [sys.executable, "-m", "benchmarks._ingest_ours", name, str(valid), str(broken)]
    return _json_of(command, environment(config))


def _spark(config: Settings, events: int) -> dict[str, float]:
    jars.fetch(config, jars.missing(config, ["spark"]))
    worker = Path(__file__).with_name("_ingest_spark.py")
    command = [sys.executable, str(worker), str(config.kafka), VEHICLE_POSITIONS.topic, str(config.home)]
    return _json_of(
        [*command, str(BATCH), str(events), jars.classpath(config, "spark").replace(":", ",")],
        {"JAVA_HOME": spark.java_home(config)},
    )


def _json_of(command: list[str], more: dict[str, str]) -> dict[str, float]:
    done = subprocess.run(command, env=os.environ | more, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} failed: {done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
