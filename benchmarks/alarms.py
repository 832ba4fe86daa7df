"""Domain alarms on the simulators' default faults: how many an hour, how many of them of nothing, and how soon.

The simulated fleet wears a thousand times as fast as a real one, and its cards live days in an hour, so the figures are
those of weeks. Models are trained on other seeds than those that are judged.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import polars_h3

from benchmarks._payments import START, lived
from benchmarks.fleet import BEGIN, faults, simulated
from city.alerts.conditions import Condition, Watch
from city.alerts.model import Severity
from city.models.champions import Serving
from city.models.examples import chosen
from city.models.exported import Exported
from city.models.model import Model
from city.models.train import fit
from city.streaming.scoring import scored
from city_assets.equipment.alarms import ANOMALY, REMAINING_LIFE
from city_assets.equipment.models import ANOMALIES, LIFE
from city_assets.payments.alarms import FRAUD
from city_assets.payments.models import FRAUDS
from city_assets.traffic.alarms import CONGESTION
from simulators.equipment import FAULTS
from simulators.payments import DEFAULT_RATE, SECONDS_BETWEEN
from simulators.traffic import Vehicle

TRAIN_HOURS, TEST_HOURS, TRAFFIC_HOURS = 14, 8, 4
_CARDS = 150
"""Of the simulated hours; the simulator's default has ten times as many, and figures are for that."""
_LATER = timedelta(seconds=60)
"""A fault's readings are in trailing means for so long after its end."""


@dataclass
class Alarm:
    key: str
    begin: datetime
    end: datetime | None
    severity: Severity
    message: dict[str, Any]


def run(
    tell: Callable[[str], None],
    train_hours: int = TRAIN_HOURS,
    test_hours: int = TEST_HOURS,
    traffic_hours: float = TRAFFIC_HOURS,
) -> dict[str, Any]:
    """Alarms an hour, by kind."""
    rows, log = simulated(1, train_hours)
    now, judged = BEGIN + timedelta(hours=train_hours), simulated(7, test_hours)
    tell("the fleet has lived")
    detector = fit(ANOMALIES, rows, champion=None, now=now, truth=faults(log)).exported
    life = fit(LIFE, rows, champion=None, now=now, truth=log).exported
    tell("the fleet's models are trained")
    paid, reports = lived(1, train_hours)
    frauds = fit(FRAUDS, paid, champion=None, now=START + timedelta(hours=train_hours), truth=reports).exported
    tell("the payments' model is trained")
    paid, reports = lived(7, test_hours)
    return {
        "bench": "alarms",
        **_machines(alarms(ANOMALY, messages(ANOMALIES, detector, judged[0])), judged[0], test_hours),
        **_lives(alarms(REMAINING_LIFE, messages(LIFE, life, judged[0])), judged[1], test_hours),
        **_cards(alarms(FRAUD, messages(FRAUDS, frauds, paid)), reports, test_hours),
        "congestion_alarms_an_hour": len(alarms(CONGESTION, rush_hour(traffic_hours))) / traffic_hours,
    }


def messages(model: Model, content: bytes, rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """What the stream would send of the view's rows."""
    assert model.stream is not None
    events = chosen(model, rows).sort(model.view.time).with_row_index("_offset")
    placed = events.with_columns(_partition=pl.lit(0, pl.Int32))
    sent = model.stream.message(scored(model, Serving(1, Exported(model, content)), placed, "t", datetime.now(UTC)))
    times = pl.selectors.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    for line in sent.with_columns(times).write_ndjson().splitlines():
        yield json.loads(line)


def alarms(condition: Condition, sent: Iterator[dict[str, Any]]) -> list[Alarm]:
    """Those that messages raise; without an end where they are still open at the last."""
    watch, raised, current = Watch(replace(condition, domain="d")), list[Alarm](), dict[str, Alarm]()
    for message in sent:
        at = datetime.fromisoformat(message[condition.time])
        arrived = message.pop("_arrived", at.timestamp() + 1)
        finding = watch.take(message, 0, arrived)
        for found in ([finding] if finding else []) + watch.pass_time():
            key = found.cause.rpartition("/")[2]
            if found.state == "passing":
                current.pop(key).end = at
            elif key in current:
                current[key].severity = found.severity
            else:
                current[key] = Alarm(key, at, None, found.severity, message)
                raised.append(current[key])
    return raised


def rush_hour(hours: float) -> Iterator[dict[str, Any]]:
    """Windows of the simulator's vehicles from six o'clock of a Monday on: each a while after its begin, and whole."""
    chance = random.Random(0)
    vehicles, begin = [Vehicle(number, chance) for number in range(600)], datetime(2026, 5, 4, 6, tzinfo=UTC)
    for window in range(int(hours * 30)):
        start, reports = begin + timedelta(minutes=2 * window), list[dict[str, Any]]()
        for step in range(60):
            reports += [v.report(start + timedelta(seconds=2 * step)) | {"step": step} for v in vehicles]
        cell = polars_h3.latlng_to_cell("latitude", "longitude", 8, return_dtype=pl.String)
        placed = pl.DataFrame(reports, infer_schema_length=None).with_columns(cell=cell)
        for steps in (15, 60):
            cells = placed.filter(pl.col("step") < steps).group_by("cell", maintain_order=True)
            speed, arrived = pl.col("speed"), (start + timedelta(seconds=2 * steps)).timestamp()
            counts = {"vehicle_count": pl.col("vehicle_id").n_unique(), "positions": pl.len()}
            for row in cells.agg(**counts, speed_mean=speed.mean(), speed_std=speed.std()).iter_rows(named=True):
                yield row | {"window_start": start.isoformat(), "_arrived": arrived}


def _machines(raised: list[Alarm], rows: pl.DataFrame, hours: int) -> dict[str, Any]:
    spans = []
    for (machine,), of in rows.sort("timestamp").partition_by("machine_id", as_dict=True).items():
        runs = of.with_columns(run=pl.col("fault").rle_id()).filter(pl.col("fault").is_in(list(FAULTS)))
        bounds = runs.group_by("run").agg(pl.col("timestamp").min().alias("a"), pl.col("timestamp").max().alias("b"))
        spans += [(machine, a, b) for _, a, b in bounds.iter_rows()]
    delays: list[float] = []
    true: set[int] = set()
    for machine, a, b in spans:
        alarms = [r for r in raised if r.key == machine and r.begin <= b + _LATER and (r.end is None or r.end >= a)]
        true |= {id(r) for r in alarms}
        delays += [max(0.0, (min(r.begin for r in alarms) - a).total_seconds())] if alarms else []
    return {
        "machine_faults_an_hour": len(spans) / hours,
        "anomaly_alarms_an_hour": len(raised) / hours,
        "anomaly_false_an_hour": (len(raised) - len(true)) / hours,
        "anomaly_found": round(len(delays) / len(spans), 4),
        "anomaly_seconds_p50": float(np.quantile(delays, 0.5)),
        "anomaly_seconds_p90": float(np.quantile(delays, 0.9)),
        "anomaly_error_share": round(np.mean([r.severity == "error" for r in raised]).item(), 2),
    }


def _lives(raised: list[Alarm], log: pl.DataFrame, hours: int) -> dict[str, Any]:
    failed = log.filter(pl.col("kind") == "failure").select("machine_id", "timestamp").rows()
    ahead = [
        (at - max(r.begin for r in before)).total_seconds() / 60
        for machine, at in failed
        if (before := [r for r in raised if r.key == machine and r.begin <= at and (r.end is None or r.end >= at)])
    ]
    return {
        "failures_an_hour": len(failed) / hours,
        "life_alarms_an_hour": len(raised) / hours,
        "life_found": round(len(ahead) / len(failed), 4),
        "life_minutes_ahead_p50": round(float(np.quantile(ahead, 0.5)), 1),
    }


def _cards(raised: list[Alarm], reports: pl.DataFrame, hours: int) -> dict[str, Any]:
    reported, scale = set(reports["payment_id"]), DEFAULT_RATE * SECONDS_BETWEEN / _CARDS / hours
    true = [r.message["payment_id"] in reported for r in raised]
    warned = [r.severity == "warning" for r in raised]
    return {
        "fraud_alarms_an_hour": round(len(raised) * scale, 1),
        "fraud_warnings_an_hour": round(sum(warned) * scale, 1),
        "fraud_warnings_true": round(float(np.mean([t for t, w in zip(true, warned, strict=True) if w])), 3),
    }
