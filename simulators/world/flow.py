"""The traffic on the streets: how much longer than on empty streets a way takes, at each crossing and moment."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats
from simulators.world.chance import between, choice, smooth, uniform
from simulators.world.local import UTC_CLOCK, LocalClock
from simulators.world.places import weights
from simulators.world.rhythm import bell, demand, night_life
from simulators.world.streets import AVENUES, is_inside, shoreline, streets
from simulators.world.weather import recent_rain

STEP_SECONDS = 60.0
"""The traffic is computed at multiples of this."""
_BASE, _RUSH = 0.12, 1.3
_SPREAD = 0.15
"""The standard deviation of the logarithm of the delay that changes within an hour, from district to district."""
_DISTRICT_METRES, _DISTRICT_PERIOD = 1_600.0, 2_400.0
_WAVE_SPREAD, _WAVE_PERIOD, _WAVE_SPEED = 0.2, 1_800.0, 2.5
"""Queues move along the avenues, against the traffic, at so many metres a second (9 km/h)."""
_WET, _WET_FULL = 0.35, 2.0
"""The share that wet streets add to the time of a way, and the rain (mm/h) that has two thirds of that effect."""
_INCIDENTS_AN_HOUR = 6
_INCIDENT_DELAY, _INCIDENT_MINUTES = (0.8, 2.4), (15.0, 50.0)
_INCIDENT_METRES, _INCIDENT_SPREAD = 200.0, 14.0
"""An incident slows the streets within so many metres, and so many metres more with each minute."""
_BEGINS_SECONDS, _DISSOLVES_SECONDS = 180.0, 1_500.0


@dataclass(frozen=True)
class Incidents:
    """Incidents that block a crossing, an array each: when it begins and is cleared (seconds), where, and its delay.

    The delay is the share by which a way at the crossing takes longer.
    """

    begin: Floats
    cleared: Floats
    crossing: NDArray[np.integer[Any]]
    delay: Floats


@dataclass(frozen=True)
class Flow:
    """The traffic of one seed, in a city's local time."""

    seed: int
    clock: LocalClock = UTC_CLOCK

    @cached_property
    def _districts(self) -> Floats:
        """The share of each district's chance in that of each crossing (n, d), so that the variance is one."""
        crossings = streets().crossings
        low, high = crossings.min(0), crossings.max(0)
        axes = [np.arange(a, b + _DISTRICT_METRES, _DISTRICT_METRES) for a, b in zip(low, high, strict=True)]
        centres = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)
        near = np.exp(-((crossings[:, None] - centres) ** 2).sum(-1) / (2 * _DISTRICT_METRES**2))
        shares: Floats = near / np.sqrt((near**2).sum(1, keepdims=True))
        return shares

    def delays(self, seconds: Any, crossings: Any = slice(None)) -> NDArray[np.float32]:
        """Computes the delay at moments (t,) and crossings, as (t, n). The default is all crossings.

        A way takes 1 + delay times as long as on empty streets.
        """
        at = np.asarray(seconds, float)
        local = self.clock.at(at)
        homes, work, night = (kind[crossings] for kind in (weights().homes, weights().work, weights().night))
        people, out = demand(local, self.seed)[:, None], night_life(local)[:, None]
        inbound = bell(local.hour, 8.5, 2.5)[:, None]
        crowded = 0.6 + 0.55 * work + (0.3 - 0.2 * inbound) * homes
        usual = _BASE + _RUSH * people * crowded + 0.5 * out * night
        districts = self._districts[crossings]
        chance = smooth(at[:, None], _DISTRICT_PERIOD, self.seed, "district", np.arange(districts.shape[1]))
        along = streets().crossings[crossings] @ AVENUES
        wave = smooth(at[:, None] + along / _WAVE_SPEED, _WAVE_PERIOD, self.seed, "wave", self._avenue[crossings])
        varied = usual * np.exp(_SPREAD * (chance @ districts.T) + _WAVE_SPREAD * wave)
        wet = _WET * -np.expm1(-recent_rain(at, self.seed) / _WET_FULL)[:, None]
        total: NDArray[np.float32] = ((1 + varied + self._incident_delays(at, crossings)) * (1 + wet) - 1).astype(
            np.float32
        )
        return total

    @cached_property
    def _avenue(self) -> NDArray[np.int64]:
        """The number of the pair of avenues at which each crossing is: queues on others are independent."""
        across = streets().crossings @ np.array([AVENUES[1], -AVENUES[0]])
        pair: NDArray[np.int64] = np.round(across / 780).astype(np.int64)
        return pair

    def incidents(self, begin: float, end: float) -> Incidents:
        """Returns the incidents that slow the traffic at some time from `begin` to `end` (seconds since 1970)."""
        longest = _INCIDENT_MINUTES[1] * 60 + _DISSOLVES_SECONDS
        hours = np.arange(np.floor((begin - longest) / 3_600), np.ceil(end / 3_600) + 1).astype(np.int64)
        hour, number = (grid.ravel() for grid in np.meshgrid(hours, np.arange(2 * _INCIDENTS_AN_HOUR)))
        often = np.minimum(demand(self.clock.at(hour * 3_600.0), self.seed), 1.4) / 1.4
        happens = uniform(self.seed, "incident", hour, number) < often * 0.8
        hour, number = hour[happens], number[happens]
        start = hour * 3_600 + 3_600 * uniform(self.seed, "inc at", hour, number)
        minutes = between(*_INCIDENT_MINUTES, self.seed, "inc long", hour, number)
        where = choice(0.15 + weights().work + weights().homes, self.seed, "inc here", hour, number)
        delay = between(*_INCIDENT_DELAY, self.seed, "inc much", hour, number)
        cleared = start + minutes * 60
        counts = (start < end) & (cleared + _DISSOLVES_SECONDS > begin)
        return Incidents(start[counts], cleared[counts], where[counts], delay[counts])

    def slowed_crossings(self, begin: float, end: float, least: float) -> list[tuple[NDArray[np.int64], float, float]]:
        """Lists for each incident from `begin` to `end` the crossings where its delay is `least` at some time, and when
        it begins and has dissolved."""
        incidents = self.incidents(begin, end)
        slowed = []
        for number in range(len(incidents.begin)):
            one = Incidents(*(column[number : number + 1] for column in vars(incidents).values()))
            last = float(one.cleared[0]) + _DISSOLVES_SECONDS
            delays = self._delays_of(one, np.arange(float(one.begin[0]), last, 120.0), slice(None))
            slowed.append((np.flatnonzero(delays.max(0) >= least), float(one.begin[0]), last))
        return slowed

    def _incident_delays(self, at: Floats, crossings: Any = slice(None)) -> Floats:
        if not len(at):
            return np.zeros((0, len(streets().crossings[crossings])))
        return self._delays_of(self.incidents(float(at.min()), float(at.max()) + 1), at, crossings)

    @staticmethod
    def _delays_of(incidents: Incidents, at: Floats, crossings: Any) -> Floats:
        network = streets()
        places = network.crossings[crossings]
        delays = np.zeros((len(at), len(places)))
        manhattan = is_inside(network.crossings, shoreline()[1][0])
        for begin, cleared, crossing, delay in zip(
            incidents.begin, incidents.cleared, incidents.crossing, incidents.delay, strict=True
        ):
            now = np.flatnonzero((at >= begin) & (at < cleared + _DISSOLVES_SECONDS))
            if not len(now):
                continue
            age = at[now] - begin
            strength = np.minimum(age / _BEGINS_SECONDS, 1) * np.clip(
                1 - (at[now] - cleared) / _DISSOLVES_SECONDS, 0, 1
            )
            reach = _INCIDENT_METRES + _INCIDENT_SPREAD / 60 * np.minimum(age, cleared - begin + 600)
            distance = ((places - network.crossings[crossing]) ** 2).sum(1)
            same_bank = manhattan[crossings] == manhattan[crossing]
            near = np.exp(-distance / (2 * reach[:, None] ** 2)) * same_bank
            delays[now] += delay * strength[:, None] * near
        return delays
