"""The lifecycle of a machine: its load, how it wears out, fails and is serviced, and its faults."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats
from simulators.faults import DEFAULT_FAULTS
from simulators.world.chance import between, normal, uniform
from simulators.world.local import UTC_CLOCK, LocalClock
from simulators.world.rhythm import demand
from simulators.world.weather import weather

LIFE_HOURS = 2.0
"""The mean life of a machine.

Wear is about a thousand times as fast as a real machine's, so that an afternoon shows several lives.
"""
_LIFE_SPREAD = 0.25
_REPAIR_SECONDS, _SERVICE_SECONDS = 240.0, 120.0
_SERVICE_WEAR = (0.35, 0.5)
"""A machine is serviced at a wear in this range, while wear hardly shows, or earlier if its life is short."""
_SERVICE_HOURS = 1.2
"""A service comes at least so many hours of an average load before the failure.

Under any load, at least an hour is left in all but two of a thousand lives. So a row that is labelled with the
longest remaining life (an hour) really had it.
"""
REGIMES = np.array([0.2, 0.6, 1.0])
"""The loads of a machine that idles, that runs at half load, and that runs at full load."""
_REGIME_SECONDS = 480.0
_LOAD_SECONDS, _WARMTH_SECONDS = 15.0, 45.0
WEAR_IDLE, WEAR_LOAD = 0.55, 0.75
"""The hours of wear in an hour, without load and with full load in addition. An average load wears an hour."""
_FAULTS_AN_HOUR, _FAULT_SECONDS = 1.0, (240.0, 600.0)
"""The faults per hour of a machine on a bad day, and how long a fault lasts."""
_BEGINS, _DEVELOPS_SECONDS = 0.6, 120.0
"""The share of a fault's effect that shows at once, and how long the rest takes to develop."""
_WEEK = 7 * 86_400.0


@dataclass(frozen=True)
class Fault:
    """The effect of a fault on a machine's readings, and how often machines have it (relative).

    `vibration`, `pressure` and `power` are factors. `degrees` are added to the temperature (°C). `unsteady` is added to
    the noise.
    """

    vibration: float = 1.0
    pressure: float = 1.0
    power: float = 1.0
    degrees: float = 0.0
    unsteady: float = 0.0
    pumps: float = 1.0
    motors: float = 1.0


FAULTS = {
    "bearing": Fault(vibration=1.8, degrees=5),
    "cavitation": Fault(vibration=1.55, pressure=0.8, unsteady=0.05, pumps=1.6, motors=0.3),
    "electrical": Fault(power=1.3, degrees=3, unsteady=0.03, pumps=0.6, motors=1.5),
    "leak": Fault(pressure=0.7, power=0.93, pumps=1.3, motors=0.6),
    "overheating": Fault(degrees=24),
}
CAUSES = tuple(FAULTS)
"""The names of the faults: a fault's number is its position here."""


@dataclass(frozen=True)
class Week:
    """What a machine does from one weekly service to the next, in seconds since 1970.

    A life ends by a failure or a service. `begins` and `ends` (l,) are those of lives, `worn` their hours of wear from
    new to failure. A fault ends at its time or with the life.
    """

    begins: Floats
    ends: Floats
    worn: Floats
    has_failed: NDArray[np.bool_]
    fault_begins: Floats
    fault_ends: Floats
    fault: NDArray[np.intp]
    strength: Floats


@dataclass(frozen=True)
class Lifecycle:
    """The lifecycle of one machine. Its state is a function of the time.

    `faults` is the share of a bad day's faults. On a bad day no machine is serviced, so each runs until it fails.
    """

    seed: int
    number: int
    clock: LocalClock = UTC_CLOCK
    faults: float = DEFAULT_FAULTS

    @property
    def kind(self) -> str:
        """The kind: pump or motor."""
        return "pump" if self.number % 2 else "motor"

    def regime(self, slot: Any) -> Floats:
        """Computes the load of regimes, which last _REGIME_SECONDS. By day, more of them have a full load."""
        slot = np.asarray(slot)
        busy = np.minimum(demand(self.clock.at(slot * _REGIME_SECONDS), self.seed), 1.0)
        pick = uniform(self.seed, "regime", self.number, slot)
        loads: Floats = REGIMES[(pick > 0.42 - 0.24 * busy).astype(int) + (pick > 0.77 - 0.24 * busy)]
        return loads

    def loads(self, seconds: Any) -> tuple[Floats, Floats]:
        """Computes the load and the warmth of the machine at moments. The warmth follows the regime more slowly."""
        at = np.asarray(seconds, float) - self._phase
        slot = np.floor(at / _REGIME_SECONDS).astype(np.int64)
        since = at - slot * _REGIME_SECONDS
        # A regime has many moments, so each is computed once.
        slots, place = np.unique(np.stack([slot, slot - 1]), return_inverse=True)
        now, before = self.regime(slots)[place.reshape(2, *slot.shape)]
        load = now + (before - now) * np.exp(-since / _LOAD_SECONDS)
        return load, now + (before - now) * np.exp(-since / _WARMTH_SECONDS)

    @cached_property
    def _phase(self) -> float:
        return float(_REGIME_SECONDS * uniform(self.seed, "phase", self.number))

    def week_of(self, seconds: float) -> int:
        """Returns the number of the machine's week at a moment. It begins with a service, at another hour for each."""
        return int((seconds - self._service_at) // _WEEK)

    @cached_property
    def _service_at(self) -> float:
        return float(_WEEK * uniform(self.seed, "service", self.number))

    def week(self, number: int) -> Week:
        """Computes a week of the machine."""
        return _week(self, number)

    def state(self, seconds: Floats) -> tuple[NDArray[np.bool_], NDArray[np.intp], Floats, Floats]:
        """Computes the machine at moments (n,): whether it runs, its fault, the fault's strength and its wear.

        The fault is a position in FAULTS, -1 for none. The wear goes from 0 to 1. All are (n,).
        """
        at = np.asarray(seconds, float)
        runs, fault, strength, wear = (
            np.zeros(len(at), bool),
            np.full(len(at), -1),
            np.zeros(len(at)),
            np.zeros(len(at)),
        )
        weeks = np.floor((at - self._service_at) / _WEEK).astype(int)
        for number in np.unique(weeks).tolist():
            those, week = np.flatnonzero(weeks == number), self.week(number)
            moments = at[those]
            life = np.maximum(np.searchsorted(week.begins, moments, side="right") - 1, 0)
            runs[those] = (moments >= week.begins[life]) & (moments < week.ends[life])
            worn = self.wear_hours(number, moments) - self.wear_hours(number, week.begins[life])
            wear[those] = worn / week.worn[life]
            if len(week.fault):
                last = np.searchsorted(week.fault_begins, moments, side="right") - 1
                has = (last >= 0) & (moments < week.fault_ends[last])
                grown = np.minimum((moments - week.fault_begins[last]) / _DEVELOPS_SECONDS, 1)
                fault[those] = np.where(has, week.fault[last], -1)
                strength[those] = np.where(has, week.strength[last] * (_BEGINS + (1 - _BEGINS) * grown), 0)
        return runs, fault, strength, wear

    def wear_hours(self, week: int, seconds: Floats) -> Floats:
        """Returns the hours of wear from the beginning of a week to moments in it."""
        slots, hours = _wear(self, week)
        return np.interp(seconds, slots, hours)


@lru_cache(maxsize=256)
def _wear(machine: Lifecycle, week: int) -> tuple[Floats, Floats]:
    """Returns the boundaries of a week's regimes (seconds since 1970), and the hours of wear until each."""
    begin = week * _WEEK + machine._service_at
    first = int((begin - machine._phase) // _REGIME_SECONDS)
    slots = np.arange(first, first + int(_WEEK / _REGIME_SECONDS) + 2)
    rate = WEAR_IDLE + WEAR_LOAD * machine.regime(slots[:-1])
    return slots * _REGIME_SECONDS + machine._phase, np.concatenate([[0.0], rate.cumsum() * _REGIME_SECONDS / 3_600])


@lru_cache(maxsize=256)
def _week(machine: Lifecycle, number: int) -> Week:
    begin, end = number * _WEEK + machine._service_at, (number + 1) * _WEEK + machine._service_at
    slots, hours = _wear(machine, number)
    seed, key = machine.seed, machine.number
    most = int(_WEEK / 1_200)
    life = np.arange(most)
    worn = LIFE_HOURS * np.exp(_LIFE_SPREAD * normal(seed, "life", key, number, life))
    is_serviced = uniform(seed, "serviced", key, number, life) >= machine.faults
    latest = np.maximum(0.0, 1 - _SERVICE_HOURS / worn)
    until = np.minimum(between(*_SERVICE_WEAR, seed, "until", key, number, life), latest)
    until = np.where(is_serviced, np.maximum(until, 0.05), 1.0) * worn
    begins, ends, moment = list[float](), list[float](), begin
    while moment < end:
        over = float(np.interp(np.interp(moment, slots, hours) + until[len(begins)], hours, slots))
        begins.append(moment)
        ends.append(min(over, end - _SERVICE_SECONDS))
        moment = max(over, moment) + (_SERVICE_SECONDS if is_serviced[len(begins) - 1] else _REPAIR_SECONDS)
    lives = len(begins)
    starts, overs = np.array(begins), np.array(ends)
    failed = ~is_serviced[:lives] & (overs < end - _SERVICE_SECONDS)
    return Week(starts, overs, worn[:lives], failed, *_faults_of(machine, begin, end, starts, overs))


def _faults_of(
    machine: Lifecycle, begin: float, end: float, begins: Floats, ends: Floats
) -> tuple[Floats, Floats, NDArray[np.intp], Floats]:
    """Chooses the faults of a week, by their causes: a machine overheats under load and on warm days."""
    seed, key = machine.seed, machine.number
    hour = np.arange(int(begin // 3_600), int(end // 3_600) + 1)
    hour = hour[uniform(seed, "fault", key, hour) < _FAULTS_AN_HOUR * machine.faults]
    start = hour * 3_600.0 + 3_600 * uniform(seed, "fault at", key, hour)
    over = start + between(*_FAULT_SECONDS, seed, "faultlen", key, hour)
    life = np.searchsorted(begins, start, side="right") - 1
    apart = np.concatenate([[True], start[1:] > over[:-1]]) if len(start) else np.zeros(0, bool)
    runs = (life >= 0) & (start < ends[life]) & apart & (start >= begin) & (start < end)
    start, over, hour, life = start[runs], over[runs], hour[runs], life[runs]
    load = machine.loads(start)[0]
    warm = np.maximum(weather(start, seed, machine.clock).temperature - 22, 0) / 15
    often = np.array([fault.pumps if machine.kind == "pump" else fault.motors for fault in FAULTS.values()])
    likely = np.tile(often, (len(start), 1))
    likely[:, CAUSES.index("overheating")] *= 0.4 + load + warm
    edges = likely.cumsum(1)
    pick = uniform(seed, "cause", key, hour)[:, None] * edges[:, -1:]
    cause = (pick > edges).sum(1)
    return start, np.minimum(over, ends[life]), cause, between(0.9, 1.3, seed, "strong", key, hour)
