"""The machines of a fleet: where they stand, what their sensors measure, and what their maintenance log says."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats
from city_assets.equipment.contract import SENSOR_READINGS, SIGNALS
from city_assets.equipment.limits import default_type
from simulators.clock import iso
from simulators.faults import DEFAULT_FAULTS
from simulators.world.chance import normal
from simulators.world.lifecycle import CAUSES, FAULTS, Fault, Lifecycle
from simulators.world.local import UTC_CLOCK, LocalClock

LOCATIONS = ("waterworks", "metro", "harbour", "power_plant")
SHIFTS = ("early", "late", "night")
MACHINES = 24
"""The number of machines of a fleet, by default."""


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


class Machine(Lifecycle):
    """One simulated machine. Its readings and its log are functions of the time."""

    @property
    def id(self) -> str:
        """The machine's id: <kind>_<number>."""
        return f"{self.kind}_{self.number:03d}"

    @property
    def location(self) -> str:
        """Where the machine stands."""
        return LOCATIONS[self.number % len(LOCATIONS)]

    @cached_property
    def level(self) -> dict[str, float]:
        """The machine's reading of each signal at full load. No two machines are alike."""
        factors = 1 + 0.05 * normal(self.seed, "level", self.number, np.arange(len(SIGNALS)))
        return {
            name: getattr(NOMINAL[self.kind], name) * float(factor)
            for name, factor in zip(SIGNALS, factors, strict=True)
        }

    def readings(self, seconds: Floats) -> tuple[dict[str, Floats], NDArray[np.bool_], NDArray[np.intp], Floats]:
        """Computes the machine at moments (n,): its readings by signal, whether it runs, its fault and its wear.

        The fault is a position in FAULTS, -1 for none. The wear goes from 0 to 1. All are (n,).
        """
        at = np.asarray(seconds, float)
        runs, fault, strength, wear = self.state(at)
        return self._read(at, fault, strength, wear), runs, fault, wear

    def _read(self, at: Floats, fault: NDArray[np.intp], strength: Floats, wear: Floats) -> dict[str, Floats]:
        load, warmth = self.loads(at)
        worn = wear**2
        effects = [*FAULTS.values(), Fault()]
        millisecond = np.round(at * 1_000).astype(np.int64)
        noise = NOMINAL[self.kind].noise + np.array([effect.unsteady for effect in effects])[fault]

        def noisy(name: str, value: Floats) -> Floats:
            factor = 1 + (np.array([getattr(effect, name, 1.0) for effect in effects])[fault] - 1) * strength
            chance = normal(self.seed, name, self.number, millisecond)
            return np.maximum(value * factor + value * noise * chance, 0)

        degrees = np.array([effect.degrees for effect in effects])[fault] * strength
        heat = 20 + (self.level["temperature"] - 20) * (0.35 + 0.65 * warmth) + 9 * worn
        return {
            "temperature": noisy("temperature", heat) + degrees,
            "vibration": noisy("vibration", self.level["vibration"] * (0.45 + 0.55 * load) * (1 + 0.6 * worn)),
            "pressure": noisy("pressure", self.level["pressure"] * (0.55 + 0.45 * load) * (1 - 0.1 * worn)),
            "power": noisy("power", self.level["power"] * (0.15 + 0.85 * load) * (1 + 0.06 * worn)),
        }

    def shift(self, seconds: Any) -> NDArray[np.intp]:
        """Returns the positions in SHIFTS of the shifts on duty at moments."""
        return (self.clock.at(seconds).hour.astype(int) + 2) // 8 % 3 - 1

    def reading(self, moment: datetime) -> dict[str, Any] | None:
        """Returns the reading at a moment, a payload of `sensor_readings`, or None while the machine is down."""
        at = np.array([moment.timestamp()])
        readings, runs, _, _ = self.readings(at)
        if not runs[0]:
            return None
        return {
            "timestamp": iso(moment),
            "machine_id": self.id,
            "sensor_id": f"{self.id}_s1",
            "readings": {name: round(float(values[0]), 3) for name, values in readings.items()},
            "metadata": {"location": self.location, "shift": SHIFTS[self.shift(at)[0]]},
        }

    def log(self, begin: float, end: float) -> list[tuple[float, str, str | None]]:
        """Returns the machine's log entries after `begin`, up to `end`: moment, kind and cause."""
        entries: list[tuple[float, str, str | None]] = []
        for number in range(self.week_of(begin) - 1, self.week_of(end) + 1):
            week = self.week(number)
            for start, over, failed in zip(week.begins, week.ends, week.has_failed, strict=True):
                entries.append((float(start), "repair", "wear"))
                if failed:
                    entries.append((float(over), "failure", "wear"))
            ends_before_life = ~np.isin(week.fault_ends, week.ends)
            entries += [
                (float(over), "inspection", CAUSES[cause])
                for over, cause, known in zip(week.fault_ends, week.fault, ends_before_life, strict=True)
                if known
            ]
        return sorted(entry for entry in entries if begin < entry[0] <= end)

    def description(self) -> dict[str, Any]:
        """Returns the machine's row of the reference table `machines`."""
        return {
            "machine_id": self.id,
            "kind": self.kind,
            "location": self.location,
            "criticality": 2,
            "manufacturer": "Simulated Works",
            "model": f"{self.kind.upper()}-{self.number % 3 + 1}00",
            "installed": date(2020 + self.number % 5, 1 + self.number % 12, 1),
            "status": "running",
        }

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
                "unit": SENSOR_READINGS.field(name).unit,
            }


def fleet(
    seed: int, count: int = MACHINES, clock: LocalClock = UTC_CLOCK, faults: float = DEFAULT_FAULTS
) -> list[Machine]:
    """Builds `count` machines. Machines of the same seed behave alike.

    `faults` is the share of a bad day's faults and missed services.
    """
    return [Machine(seed, number, clock, faults) for number in range(1, count + 1)]


def machine_types() -> list[dict[str, object]]:
    """Returns the rows of the reference table `machine_types`: the fleet's kinds, and the default for all others."""
    return [default_type(), *(default_type() | {"kind": kind} for kind in NOMINAL)]
