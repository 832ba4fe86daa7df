"""Domain alarms of a default city: how many an hour, how many of them are false, what they miss, and how soon.

Models are trained on the first seed, for as long as a city's day lets them be before domain alarms begin; conditions
were chosen on the second; judged are the others. The simulated fleet wears a thousand times as fast as a real one, and
its cards live days in an hour.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import polars_h3

from benchmarks._payments import START, lived
from benchmarks.fleet import BEGIN, faults, simulated
from city.alerts.condition_watch import ConditionWatch
from city.alerts.conditions import Condition
from city.models.champions import Serving
from city.models.examples import select_rows
from city.models.exported import Exported
from city.models.fitting import fit
from city.models.model import Model
from city.severity import Severity
from city.streaming.sinks.scores import score_rows
from city_assets.equipment.alarms import ANOMALY, CRITICAL_HOURS, REMAINING_LIFE
from city_assets.equipment.models import ANOMALIES, LIFE
from city_assets.equipment.transforms import BEFORE_FOUND
from city_assets.payments.alarms import FRAUD
from city_assets.payments.models import FRAUDS
from city_assets.traffic.alarms import CONGESTION
from simulators.faults import DEFAULT_FAULTS
from simulators.traffic import Traffic
from simulators.world.flow import Flow
from simulators.world.lifecycle import FAULTS
from simulators.world.local import UTC_CLOCK
from simulators.world.payers import CARDS
from simulators.world.streets import streets, to_degrees

TRAINED_ON, CHOSEN_ON, SEEDS = 1, 7, (11, 12, 13, 14, 15, 16, 17, 18)
FLEET_HOURS, CARD_HOURS = 23, 56
"""To train on: the models learn from their newest 400,000 rows, which are about so many hours. The cards of the other
seeds have paid for as long before the tested hours, because their features look back at days."""
TEST_HOURS, TRAFFIC_HOURS = 4, 4
_TRAFFIC_BEGINS = (datetime(2026, 5, 4, 6, tzinfo=UTC), datetime(2026, 5, 4, 15, tzinfo=UTC))
"""A Monday's rush hours."""
_VEHICLES = 600
_INCIDENT_DELAY = 0.3
"""From this delay on, an incident explains a congestion."""
_LATER = timedelta(seconds=60)
"""A fault's readings are in trailing means for so long after its end."""
_EPISODE = timedelta(minutes=10)
"""A card's frauds that are further apart are two."""
_FAILS_WITHIN = timedelta(minutes=30)
"""A machine of which it is rightly said that it is about to fail."""


@dataclass(frozen=True)
class Event:
    """What the simulator knows: something was wrong with a machine or card from `begin` to `end`."""

    key: str
    begin: datetime
    end: datetime
    is_wanted: bool = True
    """Whether an alarm is missed where there is none; it is true in any case."""


@dataclass
class Alarm:
    key: str
    begin: datetime
    end: datetime | None
    severity: Severity
    least: Severity


def run(
    tell: Callable[[str], None],
    seeds: tuple[int, ...] = SEEDS,
    test_hours: float = TEST_HOURS,
    traffic_hours: float = TRAFFIC_HOURS,
    share: float = DEFAULT_FAULTS,
    trained_hours: tuple[float, float] = (FLEET_HOURS, CARD_HOURS),
    card_hours: float = CARD_HOURS,
) -> dict[str, Any]:
    """Of each kind: what truly happened, the alarms, and how they match. `share` is of a bad day's faults."""
    detector, life = trained_fleet(trained_hours[0], share)
    frauds = trained_cards(trained_hours[1], share)
    tell("the models are trained")
    judgements: dict[str, list[Judged]] = {"anomaly": [], "remaining_life": [], "fraud": [], "congestion": []}
    for seed in seeds:
        rows, log = simulated(seed, test_hours, share)
        raised = alarms(ANOMALY, messages(ANOMALIES, detector, rows))
        judgements["anomaly"].append(judged(raised, fault_events(rows, log), after=_LATER))
        raised = alarms(REMAINING_LIFE, messages(LIFE, life, rows))
        in_time = [r for r in raised if r.begin <= BEGIN + timedelta(hours=test_hours) - _FAILS_WITHIN]
        judgements["remaining_life"].append(judged(in_time, failure_events(log, test_hours), before=_FAILS_WITHIN))
        paid, _ = lived(seed, card_hours + test_hours, CARDS, share)
        paid = paid.filter(pl.col("timestamp") >= START + timedelta(hours=card_hours))
        judgements["fraud"].append(judged(alarms(FRAUD, messages(FRAUDS, frauds, paid)), fraud_events(paid)))
        tell(f"seed {seed}: " + ", ".join(f"{kind} {of[-1]}" for kind, of in judgements.items() if of))
    for seed, begin in zip(seeds, _TRAFFIC_BEGINS, strict=False):
        raised = alarms(CONGESTION, traffic(seed, begin, traffic_hours))
        judgements["congestion"].append(judged(raised, incident_events(seed, begin, traffic_hours)))
    hours = {kind: test_hours * len(seeds) for kind in judgements}
    hours["congestion"] = traffic_hours * len(judgements["congestion"])
    kinds = {kind: summary(of, hours[kind]) for kind, of in judgements.items()}
    return {
        "bench": "alarms",
        "share_of_a_bad_day": share,
        "seeds": list(seeds),
        "alarms_an_hour": round(sum(of["alarms"] / of["hours"] for of in kinds.values()), 2),
        "false_an_hour": round(sum(of["false"] / of["hours"] for of in kinds.values()), 2),
        **kinds,
    }


def trained_fleet(hours: float, share: float) -> tuple[bytes, bytes]:
    """The detector of anomalies and the model of the remaining life."""
    rows, log = simulated(TRAINED_ON, hours, share)
    now = BEGIN + timedelta(hours=hours)
    detector = fit(ANOMALIES, rows, champion=None, now=now, truth=faults(log)).exported
    return detector, fit(LIFE, rows, champion=None, now=now, truth=log).exported


def trained_cards(hours: float, share: float) -> bytes:
    """The model of frauds."""
    paid, reports = lived(TRAINED_ON, hours, CARDS, share)
    return fit(FRAUDS, paid, champion=None, now=START + timedelta(hours=hours), truth=reports).exported


def messages(model: Model, content: bytes, rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """What the stream would send of the view's rows."""
    assert model.stream is not None
    events = select_rows(model, rows).sort(model.view.time).with_row_index("_offset")
    placed = events.with_columns(_partition=pl.lit(0, pl.Int32))
    sent = model.stream.message(score_rows(model, Serving(1, Exported(model, content)), placed, "t", datetime.now(UTC)))
    times = pl.selectors.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    for line in sent.with_columns(times).write_ndjson().splitlines():
        yield json.loads(line)


def alarms(condition: Condition, sent: Iterator[dict[str, Any]]) -> list[Alarm]:
    """Those that messages raise; without an end where they are still open at the last."""
    watch, raised, current = ConditionWatch(replace(condition, domain="d")), list[Alarm](), dict[str, Alarm]()
    for message in sent:
        at = datetime.fromisoformat(message[condition.time])
        arrived = message.pop("_arrived", at.timestamp() + 1)
        finding = watch.take(message, 0, arrived)
        for update in ([finding] if finding else []) + watch.pass_time():
            key = update.cause.rpartition("/")[2]
            if update.state == "passing":
                current.pop(key).end = at
            elif key in current:
                current[key].severity = update.severity
            else:
                current[key] = Alarm(key, at, None, update.severity, condition.severities[0][1])
                raised.append(current[key])
    return raised


def traffic(seed: int, begin: datetime, hours: float) -> Iterator[dict[str, Any]]:
    """Windows of the simulator's vehicles: each a while after its begin, and whole."""
    vehicles = Traffic(seed, UTC_CLOCK)
    for window in range(int(hours * 30)):
        start, reports = begin + timedelta(minutes=2 * window), list[dict[str, Any]]()
        for step in range(60):
            moment = start + timedelta(seconds=2 * step)
            which, _, positions = vehicles.reports(moment.timestamp(), _VEHICLES)
            columns = (which, positions.latitude, positions.longitude, positions.speed)
            reports += [
                {"vehicle_id": v, "latitude": a, "longitude": b, "speed": s, "step": step}
                for v, a, b, s in zip(*(column.tolist() for column in columns), strict=True)
            ]
        cell = polars_h3.latlng_to_cell("latitude", "longitude", 8, return_dtype=pl.String)
        placed = pl.DataFrame(reports, infer_schema_length=None).with_columns(cell=cell)
        for steps in (15, 60):
            cells = placed.filter(pl.col("step") < steps).group_by("cell", maintain_order=True)
            speed, arrived = pl.col("speed"), (start + timedelta(seconds=2 * steps)).timestamp()
            counts = {
                "vehicle_count": pl.col("vehicle_id").n_unique(),
                "positions": pl.len(),
                "speeds": pl.col("speed").count(),
            }
            for row in cells.agg(**counts, speed_mean=speed.mean(), speed_std=speed.std()).iter_rows(named=True):
                yield row | {"window_start": start.isoformat(), "_arrived": arrived}


def incident_events(seed: int, begin: datetime, hours: float) -> list[Event]:
    """The cells of the streets that an incident slows. Many a cell has too few vehicles, so none of them is missed."""
    latitude, longitude = to_degrees(streets().crossings)
    cell = polars_h3.latlng_to_cell("latitude", "longitude", 8, return_dtype=pl.String)
    cells = pl.DataFrame({"latitude": latitude, "longitude": longitude}).select(cell).to_series()
    last = (begin + timedelta(hours=hours)).timestamp()
    slowed = Flow(seed, UTC_CLOCK).slowed_crossings(begin.timestamp(), last, _INCIDENT_DELAY)
    return [
        Event(key, datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(end, UTC), is_wanted=False)
        for crossings, first, end in slowed
        for key in cells[crossings].unique()
    ]


@dataclass(frozen=True)
class Judged:
    """How alarms match what happened."""

    events: int
    alarms: int
    true: int
    missed: int
    graver: int
    """Alarms above the least severity of their condition."""
    seconds: tuple[float, ...]
    """From the begin of each event to its first alarm; negative where that came before."""

    def __str__(self) -> str:
        return f"{self.true} of {self.alarms} alarms true, {self.missed} of {self.events} events missed"


def judged(
    raised: list[Alarm], events: list[Event], before: timedelta = timedelta(), after: timedelta = timedelta()
) -> Judged:
    """An alarm is true that was open while something was wrong with its key, or so long before or after."""
    true, seconds, wanted = set[int](), list[float](), [event for event in events if event.is_wanted]
    for event in events:
        first, last = event.begin - before, event.end + after
        matching = [r for r in raised if r.key == event.key and r.begin <= last and (r.end is None or r.end >= first)]
        true |= {id(r) for r in matching}
        if matching and event.is_wanted:
            seconds.append((min(r.begin for r in matching) - event.begin).total_seconds())
    graver = sum(r.severity != r.least for r in raised)
    return Judged(len(wanted), len(raised), len(true), len(wanted) - len(seconds), graver, tuple(seconds))


def summary(seeds: list[Judged], hours: float) -> dict[str, Any]:
    """All seeds together."""
    seconds = [value for seed in seeds for value in seed.seconds]
    alarms, true = sum(seed.alarms for seed in seeds), sum(seed.true for seed in seeds)
    return {
        "hours": hours,
        "events": sum(seed.events for seed in seeds),
        "alarms": alarms,
        "graver_alarms": sum(seed.graver for seed in seeds),
        "true": true,
        "false": alarms - true,
        "missed": sum(seed.missed for seed in seeds),
        "seconds_p50": round(float(np.quantile(seconds, 0.5)), 1) if seconds else None,
        "seconds_p90": round(float(np.quantile(seconds, 0.9)), 1) if seconds else None,
    }


def fault_events(rows: pl.DataFrame, log: pl.DataFrame) -> list[Event]:
    """The simulator's faults; and the wear of machines that fail within minutes, which gold/machine_faults calls a
    fault too, and of which another alarm tells."""
    periods = []
    for (machine,), of in rows.sort("timestamp").partition_by("machine_id", as_dict=True).items():
        runs = of.with_columns(run=pl.col("fault").rle_id()).filter(pl.col("fault").is_in(list(FAULTS)))
        bounds = runs.group_by("run").agg(pl.col("timestamp").min().alias("a"), pl.col("timestamp").max().alias("b"))
        periods += [Event(machine, a, b) for _, a, b in bounds.iter_rows()]
    worn = timedelta(minutes=BEFORE_FOUND)
    return periods + [Event(machine, at - worn, at, is_wanted=False) for machine, at in _failures(log)]


def failure_events(log: pl.DataFrame, hours: float) -> list[Event]:
    """Each machine's last minutes, in which its alarm is to be open. Those of the end of the hours may only be told of
    later."""
    last, critical = BEGIN + timedelta(hours=hours) - _FAILS_WITHIN, timedelta(hours=CRITICAL_HOURS)
    return [Event(machine, at - critical, at, is_wanted=at <= last) for machine, at in _failures(log)]


def fraud_events(paid: pl.DataFrame) -> list[Event]:
    """Payments of one fraud are one event, from the first to the last."""
    new = (pl.col("timestamp").diff() > _EPISODE).fill_null(value=True).over("card")
    frauds = paid.filter(pl.col("pattern").is_not_null()).sort("card", "timestamp")
    runs = frauds.with_columns(run=new.cum_sum().over("card")).group_by("card", "run")
    bounds = runs.agg(pl.col("timestamp").min().alias("a"), pl.col("timestamp").max().alias("b"))
    return [Event(card, a, b) for card, _, a, b in bounds.iter_rows()]


def _failures(log: pl.DataFrame) -> Iterable[tuple[str, datetime]]:
    return log.filter(pl.col("kind") == "failure").select("machine_id", "timestamp").iter_rows()
