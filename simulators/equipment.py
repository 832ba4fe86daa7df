"""Simulates machines that follow the city's day, wear out, have faults, fail and are serviced."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from city.settings import Settings
from city.streaming.heartbeat import Heartbeat
from city_assets.equipment.contract import MAINTENANCE_LOG, SENSOR_READINGS
from simulators.clock import Progress, ignore, iso
from simulators.commission import commission_fleet, fill_tables
from simulators.faults import DEFAULT_FAULTS, FaultRates, Faults
from simulators.history import Chunk, Span, by_day, split_days
from simulators.resume import Resume
from simulators.to_kafka import send
from simulators.world.local import LocalClock
from simulators.world.machines import MACHINES, SHIFTS, Machine, fleet

if TYPE_CHECKING:
    import polars as pl

DEFAULT_RATE = 5.0
HISTORY_SECONDS = 5.0
"""In the history, a machine reports as often as it does live: the features count readings."""


class Simulator:
    """Simulates the fleet. Sends readings and log entries to Kafka, and fills the fleet's empty reference tables."""

    def __init__(
        self, config: Settings, rate: float = DEFAULT_RATE, faults: float = DEFAULT_FAULTS, seed: int = 0
    ) -> None:
        self.config, self.rate, self.seed = config, rate, seed
        self.machines = fleet(seed, clock=LocalClock.from_settings(config), faults=faults)
        self._faults = Faults(FaultRates.scaled(faults), seed + 1)
        self._resume = Resume(config, "simulator-equipment", "equipment")
        self._begin: float | None = None
        self._is_new = False
        """Whether the entries with which the fleet's log begins are still to be sent."""
        self._logged: dict[str, float] = {}
        self._turn = 0
        self.heartbeat = Heartbeat(config, "simulator-equipment", is_loop=True)

    def events(self, moment: datetime, count: int) -> Iterator[tuple[str, str, bytes]]:
        """Yields (topic, key, message) of `count` machines in turn: their new log entries, and their readings."""
        if self._begin is None:
            self._begin, self._is_new = self._resume.begin(moment.timestamp()), self._resume.is_first
        for _ in range(count):
            machine = self.machines[self._turn % len(self.machines)]
            self._turn += 1
            for entry in self._log(machine, moment):
                yield MAINTENANCE_LOG.topic, machine.id, json.dumps(entry).encode()
            reading = machine.reading(moment)
            for message in self._faults.messages([reading] if reading else []):
                yield SENSOR_READINGS.topic, machine.id, message
        if len(self._logged) == len(self.machines):
            self._resume.save(min(self._logged.values()))

    def _log(self, machine: Machine, moment: datetime) -> Iterator[dict[str, Any]]:
        """Yields the entries since the last call, payloads of the contract `maintenance_log`.

        The first call yields those since the last process, because a failure that is not in the log is no label.
        """
        now = moment.timestamp()
        if self._is_new and machine.id not in self._logged:
            yield {"timestamp": iso(moment), "machine_id": machine.id, "kind": "commissioned"}
        for at, kind, cause in machine.log(self._logged.get(machine.id, self._begin or now), now):
            entry = {"timestamp": iso(datetime.fromtimestamp(at, UTC)), "machine_id": machine.id, "kind": kind}
            yield entry | ({"cause": cause} if cause else {})
        self._logged[machine.id] = now

    def run(self, stop: threading.Event, progress: Progress = ignore) -> None:
        """Fills the reference tables, then sends events until `stop` is set."""
        commission_fleet(self.config.lake, self.seed)
        send(
            self.config.kafka,
            [SENSOR_READINGS, MAINTENANCE_LOG],
            self.events,
            self.rate,
            self.heartbeat,
            stop,
            progress,
        )


def history(config: Settings, seed: int, origin: datetime, begin: datetime, end: datetime) -> Iterator[Chunk]:
    """Fills the fleet's reference tables. Yields log entries and readings from `begin` to `end`, by local days."""
    import polars as pl

    fill_tables(config.lake, seed)
    span = Span.of(config, seed, origin, begin, end)
    machines = fleet(seed, clock=span.clock, faults=span.faults)
    entries: list[tuple[Any, ...]] = [
        (at, machine.id, kind, cause) for machine in machines for at, kind, cause in machine.log(span.begin, span.end)
    ]
    if span.is_first:
        entries += [(span.begin, machine.id, "commissioned", None) for machine in machines]
    columns = {"timestamp": pl.Float64, "machine_id": pl.String, "kind": pl.String, "cause": pl.String}
    log = pl.DataFrame(entries, schema=columns, orient="row")
    yield from by_day(MAINTENANCE_LOG, span, split_days(MAINTENANCE_LOG, span, log))
    read = ((day, pl.concat([_readings(machine, day) for machine in machines])) for day in span.days)
    yield from by_day(SENSOR_READINGS, span, read)


def _readings(machine: Machine, day: int) -> "pl.DataFrame":
    """Computes a machine's readings on a local day, as rows of the contract."""
    import polars as pl

    begin, end = machine.clock.begin(day), machine.clock.begin(day + 1)
    first = np.ceil(begin / HISTORY_SECONDS) * HISTORY_SECONDS
    at = np.round(np.arange(first, end, HISTORY_SECONDS) + HISTORY_SECONDS * machine.number / MACHINES % 1, 3)
    readings, runs, _, _ = machine.readings(at)
    shifts = pl.Series(SHIFTS)[machine.shift(at)[runs]]
    return pl.DataFrame(
        {"timestamp": at[runs], **{name: np.round(values[runs], 3) for name, values in readings.items()}}
    ).with_columns(
        machine_id=pl.lit(machine.id),
        sensor_id=pl.lit(f"{machine.id}_s1"),
        location=pl.lit(machine.location),
        shift=shifts,
    )
