"""Simulates vehicles that drive through the city's streets and report where they are and how fast they go."""

import threading
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from city.settings import Settings
from city.streaming.heartbeat import Heartbeat
from city_assets.traffic.contract import VEHICLE_POSITIONS
from simulators.clock import Progress, ignore, iso
from simulators.faults import DEFAULT_FAULTS, FaultRates, Faults
from simulators.history import Chunk, Span, by_day, split_days
from simulators.to_kafka import send
from simulators.world.chance import uniform
from simulators.world.flow import STEP_SECONDS, Flow
from simulators.world.local import LocalClock
from simulators.world.vehicles import DAY_BEGINS, Fleet, Positions

if TYPE_CHECKING:
    import polars as pl

DEFAULT_RATE = 300.0
_SECONDS_BETWEEN = 2.0
"""A vehicle reports about as often, so a rate of 300 events a second is 600 vehicles, of which a half drive."""
VEHICLES = round(DEFAULT_RATE * _SECONDS_BETWEEN)
_STEP = STEP_SECONDS
"""The seconds of a step of the fleet. Within it, a street keeps the speed that it has at the beginning."""
HISTORY_SECONDS = 60.0
"""In the history, a vehicle on its way reports this often. The live rate has some sixty times as many reports."""
HISTORY_IS_SAMPLED = True
"""See `city.contracts.registry.Domain.has_sampled_history`."""


class Traffic:
    """The vehicles of the present, which report in turn. Only those on their way report."""

    def __init__(self, seed: int, clock: LocalClock, vehicles: int = VEHICLES) -> None:
        self._flow, self._vehicles = Flow(seed, clock), np.arange(vehicles)
        self._fleet: Fleet | None = None
        self._turn = 0

    def reports(self, moment: float, count: int) -> tuple[NDArray[np.integer[Any]], NDArray[np.int64], Positions]:
        """Returns the vehicles (n,), days and positions of the next `count` reports at a moment (s since 1970).

        There are fewer where fewer vehicles are on their way: none reports twice at the same moment.
        """
        fleet = self._fleet = self._fleet_at(moment)
        driving = np.flatnonzero(fleet.is_driving)
        count = min(count, len(driving))
        which = driving[(self._turn + np.arange(count)) % max(len(driving), 1)]
        self._turn += count
        since = np.full(len(which), moment - fleet.at()[0])
        return self._vehicles[which], fleet.days[which], fleet.positions(which, since)

    def _fleet_at(self, moment: float) -> Fleet:
        """Returns the fleet, advanced to the last step before a moment."""
        local = self._flow.clock.at(moment)
        day = int(local.day) - int(local.hour < DAY_BEGINS)
        fleet = self._fleet
        if fleet is None or fleet.days[0] != day or fleet.at()[0] > moment:
            fleet = Fleet(self._flow, self._vehicles, np.full(len(self._vehicles), day))
        while fleet.at()[0] + _STEP <= moment:
            fleet.advance(_STEP)
        return fleet


class Simulator:
    """Simulates the vehicles, and sends their positions to Kafka."""

    def __init__(
        self, config: Settings, rate: float = DEFAULT_RATE, faults: float = DEFAULT_FAULTS, seed: int = 0
    ) -> None:
        self.config, self.rate = config, rate
        vehicles = max(1, round(rate * _SECONDS_BETWEEN))
        self._traffic = Traffic(seed, LocalClock.from_settings(config), vehicles)
        self._faults = Faults(FaultRates.scaled(faults), seed + 1, spiked="speed")
        self.heartbeat = Heartbeat(config, "simulator-traffic", is_loop=True)

    def events(self, moment: datetime, count: int) -> list[tuple[str, bytes]]:
        """Returns the messages of `count` positions, vehicle by vehicle, as (key, message)."""
        seconds = moment.timestamp()
        vehicles, days, positions = self._traffic.reports(seconds, count)
        text, messages = iso(moment), []
        columns = (vehicles, days, positions.trip, positions.latitude, positions.longitude, positions.speed)
        for vehicle, day, trip, latitude, longitude, speed in zip(*(c.tolist() for c in columns), strict=True):
            payload = {
                "vehicle_id": _vehicle_id(vehicle),
                "timestamp": text,
                "latitude": round(latitude, 6),
                "longitude": round(longitude, 6),
                "speed": round(speed, 1),
            }
            if trip:
                payload["trip_id"] = _trip_id(vehicle, day, trip)
            messages += [(payload["vehicle_id"], message) for message in self._faults.messages([payload])]
        return messages

    def run(self, stop: threading.Event, progress: Progress = ignore) -> None:
        """Sends events until `stop` is set."""
        send(self.config.kafka, [VEHICLE_POSITIONS], self._messages, self.rate, self.heartbeat, stop, progress)

    def _messages(self, moment: datetime, count: int) -> Iterator[tuple[str, str, bytes]]:
        return ((VEHICLE_POSITIONS.topic, key, message) for key, message in self.events(moment, count))


def history(config: Settings, seed: int, origin: datetime, begin: datetime, end: datetime) -> Iterator[Chunk]:
    """Yields the reports from `begin` to `end`, a local day at a time.

    Each vehicle on its way reports every HISTORY_SECONDS. It is where it also is in the live city at that moment.
    """
    span = Span.of(config, seed, origin, begin, end)
    days = np.arange(span.days.start - 1, span.days.stop)  # a vehicle's day ends after ours
    reports = split_days(VEHICLE_POSITIONS, span, _reports(Flow(seed, span.clock), days, span))
    yield from by_day(VEHICLE_POSITIONS, span, ((day, _rows(rows)) for day, rows in reports))


def _reports(flow: Flow, days: NDArray[np.integer[Any]], span: Span) -> "pl.DataFrame":
    """Computes the reports of all vehicles on days, until the end of the span, in any order.

    Degrees are in millionths and speeds in tenths: many days are in memory, so they have half the size.
    """
    import polars as pl

    pairs = np.tile(np.arange(VEHICLES), len(days)), np.repeat(days, VEHICLES)
    fleet = Fleet(flow, *pairs)
    # Each vehicle has its own second of the minute, so that reports are spread over it as live ones are.
    phase = HISTORY_SECONDS * uniform(flow.seed, "phase", pairs[0])
    steps = round(HISTORY_SECONDS / _STEP)
    parts: list[tuple[NDArray[Any], ...]] = []
    number = 0
    while (fleet.at() < np.minimum(fleet.ends, span.end)).any():
        within = phase - number % steps * _STEP
        which = np.flatnonzero(fleet.is_driving & (within >= 0) & (within < _STEP))
        moments = fleet.at(fleet.group[which]) + within[which]
        counts = (moments < fleet.ends[fleet.group[which]]) & (moments >= span.begin) & (moments < span.end)
        which, moments = which[counts], moments[counts]
        positions = fleet.positions(which, within[which])
        degrees = (np.round(values * 1e6).astype(np.int32) for values in (positions.latitude, positions.longitude))
        speed = np.round(positions.speed * 10).astype(np.int16)
        parts.append((moments, which.astype(np.int32), *degrees, speed, positions.trip.astype(np.int16)))
        fleet.advance(_STEP)
        number += 1
    names = ("timestamp", "pair", "latitude", "longitude", "speed", "trip")
    columns = dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    pair = columns.pop("pair")
    return pl.DataFrame(columns).with_columns(
        vehicle=pl.Series(pairs[0].astype(np.int16)[pair]), day=pl.Series(pairs[1].astype(np.int32)[pair])
    )


def _rows(reports: "pl.DataFrame") -> "pl.DataFrame":
    """Returns reports as rows of the contract."""
    import polars as pl

    number = pl.col("vehicle").cast(pl.String).str.zfill(5)
    # NumPy divides; Polars multiplies by the inverse, which leaves 12.3 as 12.299999999999999.
    scale = {"latitude": 1e6, "longitude": 1e6, "speed": 10}
    return reports.with_columns(
        pl.Series(name, reports[name].to_numpy() / parts) for name, parts in scale.items()
    ).select(
        "timestamp",
        *scale,
        vehicle_id=pl.format("vehicle_{}", number),
        trip_id=pl.when(pl.col("trip") > 0).then(pl.format("trip_{}_{}_{}", number, "day", "trip")),
    )


def _vehicle_id(vehicle: int) -> str:
    return f"vehicle_{vehicle:05d}"


def _trip_id(vehicle: int, day: int, trip: int) -> str:
    return f"trip_{vehicle:05d}_{day}_{trip}"
