"""The simulated fleet on a bad day: models trained on one fleet's first hours, judged on fleets of seeds that nothing
has seen."""

import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from city.contracts.schema import TIMESTAMP
from city.lake.engines.polars import PolarsEngine
from city.lake.reference import commission
from city.models.anomaly import SCORE
from city.models.champions import Serving
from city.models.examples import inputs, label_rows, labels, select_rows
from city.models.exported import Exported
from city.models.fitting import fit
from city.stack.embedded import settings_at
from city.streaming.decode import decode
from city.streaming.records import RawBatch
from city.streaming.sinks.features import Events
from city.streaming.sinks.scores import score_rows
from city.tables.schema import schema
from city_assets.equipment.contract import FLEET, SENSOR_READINGS, SIGNALS
from city_assets.equipment.limits import DEFAULT_LIMITS
from city_assets.equipment.models import ANOMALIES, LIFE
from city_assets.equipment.tables import ANOMALY_EVENTS, MACHINE_FEATURES, MACHINE_TYPES
from city_assets.equipment.transforms import machine_faults
from simulators.world.lifecycle import FAULTS
from simulators.world.machines import Machine, fleet, machine_types

BEGIN = datetime(2026, 5, 4, 6, tzinfo=UTC)
EVERY = timedelta(seconds=5)
TRAIN_HOURS, TEST_HOURS = 14, 8
SEEDS = (2, 3, 4, 5, 6)


def run(
    tell: Callable[[str], None],
    train_hours: int = TRAIN_HOURS,
    test_hours: int = TEST_HOURS,
    seeds: tuple[int, ...] = SEEDS,
) -> dict[str, Any]:
    """F1 of single readings against the simulator's own faults, beside that of the normal ranges; and how often the
    life that was left is within its 90 % interval."""
    rows, log = simulated(1, train_hours)
    now = BEGIN + timedelta(hours=train_hours)
    tell(f"{rows.height:,} readings of a fleet to train on")
    detector = Exported(ANOMALIES, fit(ANOMALIES, rows, champion=None, now=now, truth=faults(log)).exported)
    fitted = fit(LIFE, rows, champion=None, now=now, truth=log, progress=tell)
    life = Exported(LIFE, fitted.exported)
    intervals = life.calibration.intervals
    assert intervals is not None
    truth, alarms, out_of_range, each = [], [], [], []
    missed, within, usual = [], [], []
    for seed in seeds:
        unseen, log = simulated(seed, test_hours)
        wrong = unseen["fault"].is_not_null().to_numpy()
        flags = detector.predict(inputs(ANOMALIES, unseen))[:, SCORE] > 1
        truth.append(wrong)
        alarms.append(flags)
        each.append(_f1(wrong, flags))
        now_columns = pl.col([f"{signal}_now" for signal in SIGNALS])
        out = unseen.select(pl.any_horizontal(~now_columns.is_between(-0.1, 1.1)))
        out_of_range.append(out.to_series().to_numpy())
        known = label_rows(LIFE, select_rows(LIFE, unseen), log)
        share, said = labels(LIFE, known), life.predict(inputs(LIFE, known))
        low, high = intervals.around(said)
        missed.append(DEFAULT_LIMITS.cap * np.abs(said - share))
        within.append((low <= share) & (share <= high))
        usual.append(DEFAULT_LIMITS.cap * np.abs(share - np.median(labels(LIFE, fitted.parts.train))))
        tell(f"seed {seed}: F1 {each[-1]:.3f}, intervals hold {within[-1].mean():.3f}")
    wrong, flags = np.concatenate(truth), np.concatenate(alarms)
    return {
        "bench": "fleet",
        "unseen_seeds": list(seeds),
        "readings": len(wrong),
        "anomaly_f1": round(_f1(wrong, flags), 4),
        "anomaly_f1_worst_seed": round(min(each), 4),
        "anomaly_far": round(float((flags & ~wrong).sum() / (~wrong).sum()), 4),
        "anomaly_mar": round(float((wrong & ~flags).sum() / wrong.sum()), 4),
        "normal_ranges_f1": round(_f1(wrong, np.concatenate(out_of_range)), 4),
        "stream_p99_ms": round(float(np.quantile(in_the_stream(detector), 0.99)) * 1000, 2),
        "life_mae_hours": round(float(np.concatenate(missed).mean()), 4),
        "life_mae_hours_of_the_median": round(float(np.concatenate(usual).mean()), 4),
        "life_coverage_90": round(float(np.concatenate(within).mean()), 4),
        "life_cap_hours": DEFAULT_LIMITS.cap,
    }


def simulated(seed: int, hours: float, share: float = 1.0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A fleet's features at each reading, with the `fault` that the simulator had then, and its maintenance log.
    `share` is of a bad day's faults."""
    machines = fleet(seed, faults=share)
    begin = BEGIN.timestamp()
    at = begin + np.arange(0, hours * 3600, EVERY.total_seconds())
    rows = pl.concat(_read(machine, at) for machine in machines)
    log: list[tuple[Any, ...]] = [(begin, machine.id, "commissioned", None) for machine in machines]
    log += [(*entry[:1], machine.id, *entry[1:]) for machine in machines for entry in machine.log(begin, float(at[-1]))]
    ranges = pl.DataFrame([row for machine in machines for row in machine.ranges()])
    entries = pl.DataFrame(
        log,
        schema={"timestamp": pl.Float64, "machine_id": pl.String, "kind": pl.String, "cause": pl.String},
        orient="row",
    ).with_columns((pl.col("timestamp") * 1e6).cast(pl.Int64).cast(TIMESTAMP))
    engine = PolarsEngine()
    described = pl.DataFrame([machine.description() for machine in machines])
    types = pl.DataFrame(machine_types(), schema=schema(MACHINE_TYPES))
    frames = {"readings": rows, "ranges": ranges, "machines": described, "types": types}
    assert MACHINE_FEATURES.transform is not None
    feature_rows = engine.collect(
        MACHINE_FEATURES.transform(**{name: engine.local(frame) for name, frame in frames.items()})
    )
    return feature_rows.sort("timestamp", "machine_id"), entries


def _read(machine: Machine, at: NDArray[np.floating[Any]]) -> pl.DataFrame:
    """Returns a machine's readings at moments at which it runs, with the name of its fault."""
    readings, runs, fault, _ = machine.readings(at)
    names = pl.Series([*FAULTS, None], dtype=pl.String)
    return pl.DataFrame(
        {
            "timestamp": (at[runs] * 1e6).astype(np.int64),
            "machine_id": machine.id,
            "fault": names[np.where(fault[runs] < 0, len(FAULTS), fault[runs])],
            **{name: np.round(values[runs], 3) for name, values in readings.items()},
        }
    ).with_columns(pl.col("timestamp").cast(TIMESTAMP))


def faults(log: pl.DataFrame) -> pl.DataFrame:
    """What the log says, as the gold table has it; nobody has confirmed anything yet."""
    engine = PolarsEngine()
    events = pl.DataFrame(schema=schema(ANOMALY_EVENTS))
    return engine.collect(machine_faults(engine.local(log), engine.local(events)))


def in_the_stream(detector: Exported, events: int = 500) -> list[float]:
    """Seconds that the stream takes for each of single events: its features from what is held, and its score."""
    machines, taken = fleet(1), []
    with tempfile.TemporaryDirectory() as home:
        config = settings_at(Path(home), Path(home))
        commission(config.lake, "machine_sensors", [row for machine in machines for row in machine.ranges()])
        held = Events(ANOMALIES.view, SENSOR_READINGS, config)
        held.hold(_as_bronze(machines, 0, FLEET.look_back))
        serving = Serving(1, detector)
        for step in range(-(-events // len(machines))):
            rows = _as_bronze(machines, FLEET.look_back + step, 1)
            for row in rows.iter_slices(1):
                began = time.perf_counter()
                placed = held.add(row).with_columns(row["_partition"], row["_offset"])
                score_rows(ANOMALIES, serving, placed, SENSOR_READINGS.topic, BEGIN)
                taken.append(time.perf_counter() - began)
    return taken


def _as_bronze(machines: list[Machine], first: int, steps: int) -> pl.DataFrame:
    """Readings of so many steps, as the stream has them in bronze."""
    values: list[bytes | None] = []
    for step in range(first, first + steps):
        for machine in machines:
            if reading := machine.reading(BEGIN + step * EVERY):
                values.append(json.dumps(reading).encode())
    count, offset = len(values), first * len(machines)
    arrived = np.full(count, int((BEGIN + (first + steps) * EVERY).timestamp() * 1e6), np.int64)
    offsets = np.arange(offset, offset + count, dtype=np.int64)
    raw = RawBatch(values, np.zeros(count, np.int32), offsets, arrived, {0: offset}, {0: offset + count})
    return decode(SENSOR_READINGS, raw, {})[0]


def _f1(truth: np.ndarray[Any, Any], flags: np.ndarray[Any, Any]) -> float:
    return float(2 * (truth & flags).sum() / (truth.sum() + flags.sum()))
