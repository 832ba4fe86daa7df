"""Simulates machines that run through operating regimes, wear out, have faults, fail and are serviced."""

import json
import math
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from city.settings import Settings
from city.streaming.heartbeat import Heartbeat
from city_assets.equipment.contract import LOCATIONS, MAINTENANCE_LOG, SENSOR_READINGS, SHIFTS, SIGNALS
from simulators.clock import UTC_CLOCK, LocalClock, Progress, ignore, iso
from simulators.commission import commission_fleet
from simulators.faults import DEFAULT_FAULTS, FaultRates, Faults
from simulators.to_kafka import send

DEFAULT_RATE = 5.0
MACHINES = 24
LIFE_HOURS = 2.0
"""The mean life of a machine.

Wear is about a thousand times as fast as a real machine's, so that an afternoon shows several lives.
"""
_LIFE_SPREAD = 0.25
_REPAIR, _SERVICE = timedelta(minutes=4), timedelta(minutes=2)
_SERVICE_WEAR = (0.35, 0.5)
"""A machine is serviced at a wear in this range, while wear hardly shows, or earlier if its life is short."""
_SERVICE_HOURS = 1.2
"""A service comes at least so many hours of an average load before the failure.

Under any load, at least an hour is left in all but two of a thousand lives. So a row that is labelled with the
longest remaining life (an hour) really had it.
"""
_REGIMES = {"idle": 0.2, "half": 0.6, "full": 1.0}
_REGIME_MINUTES = (4, 15)
_FAULTS_PER_HOUR, _FAULT_MINUTES = 1.0, (4, 10)
"""The faults per hour of a machine on a bad day, and how long a fault lasts (least and most minutes)."""
_LONGEST_STEP = 60.0
_SMOOTH_SECONDS = {"temperature": 45.0, "load": 15.0}


@dataclass(frozen=True)
class Nominal:
    """The readings of a kind of machine at full load, in the units of the contract `sensor_readings`.

    `noise` is their standard deviation, as a share of the reading.
    """

    temperature: float
    vibration: float
    pressure: float
    power: float
    noise: float = 0.012


NOMINAL = {"pump": Nominal(68, 2.8, 6.5, 22), "motor": Nominal(82, 3.6, 2.2, 45)}


@dataclass(frozen=True)
class Fault:
    """The effect of a fault on a machine's readings.

    `vibration`, `pressure` and `power` are factors. `degrees` are added to the temperature (°C). `unsteady` is added to
    the noise.
    """

    vibration: float = 1.0
    pressure: float = 1.0
    power: float = 1.0
    degrees: float = 0.0
    unsteady: float = 0.0


FAULTS = {
    "bearing": Fault(vibration=1.8, degrees=5),
    "overheating": Fault(degrees=24),
    "leak": Fault(pressure=0.7, power=0.93),
    "electrical": Fault(power=1.3, degrees=3, unsteady=0.03),
    "cavitation": Fault(vibration=1.55, pressure=0.8, unsteady=0.05),
}


class Machine:
    """Simulates one machine. `fault` is its current fault. `wear` goes from 0 to 1, at which the machine fails.

    `faults` is the share of a bad day's faults. On a bad day no machine is serviced, so each runs until it fails.
    """

    def __init__(
        self, number: int, chance: random.Random, clock: LocalClock = UTC_CLOCK, faults: float = DEFAULT_FAULTS
    ) -> None:
        self.clock = clock
        self._faults_per_hour, self._missed_services = _FAULTS_PER_HOUR * faults, faults
        self.kind = "pump" if number % 2 else "motor"
        self.id, self.location = f"{self.kind}_{number:03d}", LOCATIONS[number % len(LOCATIONS)]
        self._random = chance
        nominal = NOMINAL[self.kind]
        # No two machines are alike: each has its own level of each signal.
        self.level = {name: getattr(nominal, name) * chance.gauss(1, 0.05) for name in SIGNALS}
        self._noise = nominal.noise
        self._at: datetime | None = None
        self._regime, self._load = "half", _REGIMES["half"]
        self._regime_until: datetime | None = None
        self.fault: str | None = None
        self._strength = 1.0
        self._fault_until: datetime | None = None
        self.down_until: datetime | None = None
        self._service_wear: float
        self._begin_life()
        self.wear = chance.uniform(0, min(0.8, self._service_wear))  # the machines of a fleet have different ages
        self._warmth = self._load

    def _begin_life(self) -> None:
        self.wear, self.fault = 0.0, None
        self._life = LIFE_HOURS * math.exp(self._random.gauss(0, _LIFE_SPREAD))
        is_serviced = self._random.random() >= self._missed_services
        latest = max(0.0, 1 - _SERVICE_HOURS / self._life)
        self._service_wear = min(self._random.uniform(*_SERVICE_WEAR), latest) if is_serviced else math.inf

    def step(self, moment: datetime) -> list[dict[str, Any]]:
        """Advances the machine to `moment`. Returns its new log entries, payloads of the contract `maintenance_log`."""
        seconds = min((moment - self._at).total_seconds(), _LONGEST_STEP) if self._at else 0.0
        first, self._at = self._at is None, moment
        if first:
            return [self._log_entry(moment, "commissioned")]
        if self.down_until is not None:
            if moment < self.down_until:
                return []
            self.down_until = None
            self._begin_life()
            return [self._log_entry(moment, "repair", "wear")]
        self._run(moment, seconds)
        self.wear += seconds / 3600 / self._life * (0.55 + 0.75 * self._load)
        if self.wear >= 1:
            self.down_until, self.fault = moment + _REPAIR, None
            return [self._log_entry(moment, "failure", "wear")]
        if self.fault is None and self.wear >= self._service_wear:
            self.down_until = moment + _SERVICE
            return []
        return self._step_fault(moment, seconds)

    def _run(self, moment: datetime, seconds: float) -> None:
        if self._regime_until is None or moment >= self._regime_until:
            self._regime = self._random.choice([name for name in _REGIMES if name != self._regime])
            self._regime_until = moment + timedelta(minutes=self._random.uniform(*_REGIME_MINUTES))
        self._load += (_REGIMES[self._regime] - self._load) * (1 - math.exp(-seconds / _SMOOTH_SECONDS["load"]))
        self._warmth += (self._load - self._warmth) * (1 - math.exp(-seconds / _SMOOTH_SECONDS["temperature"]))

    def _step_fault(self, moment: datetime, seconds: float) -> list[dict[str, Any]]:
        if self.fault is not None and self._fault_until is not None and moment >= self._fault_until:
            cause, self.fault = self.fault, None
            return [self._log_entry(moment, "inspection", cause)]
        if self.fault is None and self._random.random() < self._faults_per_hour * seconds / 3600:
            self.fault = self._random.choice(sorted(FAULTS))
            self._strength = self._random.uniform(0.9, 1.3)
            self._fault_until = moment + timedelta(minutes=self._random.uniform(*_FAULT_MINUTES))
        return []

    def reading(self) -> dict[str, Any] | None:
        """Returns the machine's reading at the moment of its last step, or None while the machine is down.

        The reading is a payload of the contract `sensor_readings`.
        """
        if self.down_until is not None or self._at is None:
            return None
        worn = self.wear**2
        fault = FAULTS[self.fault] if self.fault else Fault()
        noise = self._noise + fault.unsteady

        def noisy(value: float, factor: float = 1.0) -> float:
            return max(0.0, self._random.gauss(value * (1 + (factor - 1) * self._strength), abs(value) * noise))

        temperature = 20 + (self.level["temperature"] - 20) * (0.35 + 0.65 * self._warmth) + 9 * worn
        readings = {
            "temperature": noisy(temperature) + fault.degrees * self._strength,
            "vibration": noisy(
                self.level["vibration"] * (0.45 + 0.55 * self._load) * (1 + 0.6 * worn), fault.vibration
            ),
            "pressure": noisy(self.level["pressure"] * (0.55 + 0.45 * self._load) * (1 - 0.1 * worn), fault.pressure),
            "power": noisy(self.level["power"] * (0.15 + 0.85 * self._load) * (1 + 0.06 * worn), fault.power),
        }
        shift = SHIFTS[(int(self.clock.at(self._at).hour) + 2) // 8 % 3 - 1]
        return {
            "timestamp": iso(self._at),
            "machine_id": self.id,
            "sensor_id": f"{self.id}_s1",
            "readings": {name: round(value, 3) for name, value in readings.items()},
            "metadata": {"location": self.location, "shift": shift},
        }

    def description(self) -> dict[str, Any]:
        """Returns the machine's row of the reference table `machines`."""
        return {"machine_id": self.id, "kind": self.kind, "location": self.location, "criticality": 2}

    def ranges(self) -> Iterator[dict[str, Any]]:
        """Yields the machine's rows of the reference table `machine_sensors`.

        The normal range of a signal reaches from idle to full load of a machine with little wear.
        """
        idle = {"temperature": 0.45, "vibration": 0.54, "pressure": 0.64, "power": 0.32}
        for name in SIGNALS:
            yield {
                "machine_id": self.id,
                "signal": name,
                "sensor_id": f"{self.id}_s1",
                "normal_minimum": round(self.level[name] * idle[name] * 0.95, 3),
                "normal_maximum": round(self.level[name] * 1.05, 3),
            }

    def _log_entry(self, moment: datetime, kind: str, cause: str | None = None) -> dict[str, Any]:
        entry = {"timestamp": iso(moment), "machine_id": self.id, "kind": kind}
        return entry | ({"cause": cause} if cause else {})


def fleet(
    seed: int, count: int = MACHINES, clock: LocalClock = UTC_CLOCK, faults: float = DEFAULT_FAULTS
) -> list[Machine]:
    """Builds `count` machines. Machines of the same seed behave alike.

    `faults` is the share of a bad day's faults and missed services.
    """
    return [Machine(number, random.Random(seed * 1000 + number), clock, faults) for number in range(1, count + 1)]


class Simulator:
    """Simulates the fleet. Sends readings and log entries to Kafka, and fills the fleet's empty reference tables."""

    def __init__(
        self, config: Settings, rate: float = DEFAULT_RATE, faults: float = DEFAULT_FAULTS, seed: int = 0
    ) -> None:
        self.config, self.rate, self.seed = config, rate, seed
        self.machines = fleet(seed, clock=LocalClock.from_settings(config), faults=faults)
        self._faults = Faults(FaultRates.scaled(faults), seed + 1)
        self._turn = 0
        self.heartbeat = Heartbeat(config, "simulator-equipment", is_loop=True)

    def events(self, moment: datetime, count: int) -> Iterator[tuple[str, str, bytes]]:
        """Advances `count` machines to `moment`. Yields (topic, key, message) of their log entries and readings."""
        for _ in range(count):
            machine = self.machines[self._turn % len(self.machines)]
            self._turn += 1
            for entry in machine.step(moment):
                yield MAINTENANCE_LOG.topic, machine.id, json.dumps(entry).encode()
            reading = machine.reading()
            for message in self._faults.messages([reading] if reading else []):
                yield SENSOR_READINGS.topic, machine.id, message

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
