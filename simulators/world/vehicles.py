"""Vehicles on their ways through the streets: cabs from place to place, and commuters between home and work."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats
from simulators.world.chance import between, choice, normal, uniform
from simulators.world.flow import STEP_SECONDS, Flow
from simulators.world.local import DAY_SECONDS
from simulators.world.places import weights
from simulators.world.rhythm import bell, night_life
from simulators.world.streets import Streets, streets, to_degrees

DAY_BEGINS = 4.0
"""The local hour at which a vehicle's day begins, at its home. Nearly no vehicle is on its way then."""
_LAST_TRIP = 23.7
"""The hours after DAY_BEGINS after which nobody leaves any more, so that nearly all stand when the next day begins."""
_CABS, _DAY_AND_NIGHT = 0.85, 0.2
"""The share of cabs among the vehicles, and the share of them that two drivers drive, day and night."""
_SHIFT_HOURS = 12.0
_WAIT_SECONDS = (60.0, 420.0)
"""How long a cab waits between two trips."""
_CARRIES = 0.75
"""The share of a cab's trips with a passenger. Only those have a trip id."""
_DRIVERS = 0.06
"""The spread of the speed from driver to driver, as a share."""
_STOPPED, _STOP_SECONDS = 0.06, 8.0
"""The share of the time in which a vehicle stands, at lights and in queues, and how long it stands."""
_UNEVEN = 0.12
_SHORTEST = 1.0
_STEPS_AN_HOUR = round(3_600 / STEP_SECONDS)
_MOST_CROSSINGS = 12


@dataclass(frozen=True)
class Positions:
    """Where vehicles are at a moment, an array each: degrees, km/h, and the number of the trip, 0 for none."""

    latitude: Floats
    longitude: Floats
    speed: Floats
    trip: NDArray[np.int64]


class Fleet:
    """The vehicles of one or more days. Each pair of a vehicle and a day is simulated on its own, so days are parallel.

    `advance` moves them by a step. `positions` computes where they are within the step, and changes nothing.
    """

    def __init__(self, flow: Flow, vehicles: NDArray[np.integer[Any]], days: NDArray[np.integer[Any]]) -> None:
        """Places vehicles at home at the beginning of days. Both arrays are (b,): the pairs to simulate.

        `days` are numbers of local days (see `simulators.world.local`).
        """
        self.flow, self.vehicles, self.days = flow, np.asarray(vehicles), np.asarray(days)
        self._streets: Streets = streets()
        seed, keys = flow.seed, (self.vehicles,)
        self.is_cab = uniform(seed, "cab", *keys) < _CABS
        self.driver = np.exp(_DRIVERS * normal(seed, "driver", *keys))
        self.home = choice(weights().homes, seed, "home", *keys)
        self.work = choice(weights().work, seed, "work", *keys)
        # A day may have 23 or 25 hours: `hours` are counted from its beginning, and `ends` is the next day's.
        self._groups, self.group = np.unique(self.days, return_inverse=True)
        self._begins = np.array([_begin(flow, day) for day in self._groups])
        self.ends = np.array([_begin(flow, day + 1) for day in self._groups])
        self.hours = 0.0
        self.crossing, self.next = self.home.copy(), self.home.copy()
        self.destination = self.home.copy()
        self.metres = np.zeros(len(keys[0]))
        self.trip = np.zeros(len(keys[0]), np.int64)
        self.is_driving = np.zeros(len(keys[0]), bool)
        self._plan_day()
        self._delays: NDArray[np.float32] = np.zeros((0, 0, 0), np.float32)
        self._delays_hour = -1
        self._leave()

    def _plan_day(self) -> None:
        """Chooses when each vehicle leaves first, and a cab's shift, or a commuter's ways of the day."""
        seed, keys = self.flow.seed, (self.vehicles, self.days)
        workday = self.flow.clock.at(self._begins + 8 * 3_600).is_workday[self.group]
        early = uniform(seed, "early", *keys) < 0.62
        begin = np.where(early, 1.0 + 2.2 * normal(seed, "shift at", *keys) ** 2, 9 + 3 * uniform(seed, "shift", *keys))
        always = uniform(seed, "always", self.vehicles) < _DAY_AND_NIGHT
        begin = np.where(always, 0.1 * uniform(seed, "first", *keys) - 0.05, begin)  # half of them drive at once
        self.shift_end = np.where(always, _LAST_TRIP, np.minimum(begin + _SHIFT_HOURS, _LAST_TRIP))
        leave = np.where(workday, 4.3 + 0.8 * normal(seed, "leave", *keys), 9 + 2.5 * normal(seed, "leave", *keys))
        back = np.where(workday, 13.5 + 1.0 * normal(seed, "back", *keys), leave + 1.5 + 3 * uniform(seed, "b", *keys))
        goes = uniform(seed, "goes", *keys) < np.where(workday, 0.9, 0.7)
        self._commute = np.stack([np.where(goes, leave, 99), np.where(goes, np.maximum(back, leave + 0.7), 99)])
        self._commute_to = np.stack(
            [np.where(workday, self.work, choice(weights().night, seed, "visit", *keys)), self.home]
        )
        self.leaves = np.where(self.is_cab, begin, self._commute[0])

    def at(self, group: Any = slice(None)) -> Floats:
        """Returns the seconds since 1970 of the fleet's present, for each of its days."""
        moments: Floats = self._begins[group] + self.hours * 3_600
        return moments

    def advance(self, seconds: float) -> None:
        """Moves all vehicles by so many seconds: those that arrive stop, and those that are due leave."""
        self._move(self.is_driving.nonzero()[0], np.full(len(self.vehicles), seconds), commit=True)
        self.hours += seconds / 3_600
        self._leave()

    def positions(self, which: NDArray[np.integer[Any]], seconds: Floats) -> Positions:
        """Computes where vehicles are so many seconds (n,) after the present. `which` (n,) are positions in the batch.

        Vehicles that stand are where they stopped. Nothing changes.
        """
        crossing, following, metres, kmh = self._move(which, np.asarray(seconds, float), commit=False)
        crossings = self._streets.crossings
        length = np.maximum(self._streets.metres[crossing, following], _SHORTEST)
        share = np.where(crossing == following, 0.0, np.clip(metres / length, 0, 1))
        place = crossings[crossing] + share[:, None] * (crossings[following] - crossings[crossing])
        latitude, longitude = to_degrees(place)
        seed, vehicle = self.flow.seed, self.vehicles[which]
        slot = np.floor((self._begins[self.group[which]] + self.hours * 3_600 + seconds) / _STOP_SECONDS)
        slot = slot.astype(np.int64)
        stands = uniform(seed, "stands", vehicle, slot) < _STOPPED
        uneven = np.exp(_UNEVEN * normal(seed, "uneven", vehicle, slot) - _UNEVEN**2 / 2) / (1 - _STOPPED)
        speed = np.where(stands, 0.0, kmh * uneven)
        carries = ~self.is_cab[which] | (
            uniform(seed, "carries", vehicle, self.days[which], self.trip[which]) < _CARRIES
        )
        return Positions(latitude, longitude, speed, np.where(carries, self.trip[which], 0))

    def _leave(self) -> None:
        due = np.flatnonzero(~self.is_driving & (self.leaves <= self.hours))
        if not len(due):
            return
        self.trip[due] += 1
        self.destination[due] = self._choose_destination(due)
        stays = self.destination[due] == self.crossing[due]
        self.leaves[due[stays]] = self.hours + 0.05
        goes = due[~stays]
        self.is_driving[goes] = True
        self.metres[goes] = 0
        self.next[goes] = self._streets.next_crossing[self.crossing[goes], self.destination[goes]]

    def _choose_destination(self, due: NDArray[np.intp]) -> NDArray[np.intp]:
        seed, keys = self.flow.seed, (self.vehicles[due], self.days[due], self.trip[due])
        local = self.flow.clock.at(self._begins[self.group[due]] + self.hours * 3_600)
        morning = bell(local.hour, 8.5, 2.0) * local.is_workday
        evening = bell(local.hour, 18.5, 2.5)
        to_work, to_night = 0.35 + morning, 0.1 + night_life(local)
        to_home = 0.3 + 0.7 * evening
        pick = uniform(seed, "kind", *keys) * (to_work + to_night + to_home)
        places = weights()
        place = np.where(
            pick < to_work,
            choice(places.work, seed, "to", *keys),
            np.where(
                pick < to_work + to_night,
                choice(places.night, seed, "to", *keys),
                choice(places.homes, seed, "to", *keys),
            ),
        )
        way = np.minimum(self.trip[due] - 1, 1)
        commuters = self._commute_to[way, due]
        last = self.hours >= self.shift_end[due]
        return np.where(self.is_cab[due], np.where(last, self.home[due], place), commuters)

    def _arrive(self, arrived: NDArray[np.intp]) -> None:
        self.is_driving[arrived] = False
        keys = (self.vehicles[arrived], self.days[arrived], self.trip[arrived])
        wait = between(*_WAIT_SECONDS, self.flow.seed, "waits", *keys) / 3_600
        is_over = (self.hours > self.shift_end[arrived]) | (self.hours + wait > _LAST_TRIP)
        cab = np.where(is_over, 99, self.hours + wait)
        commuter = np.where(self.trip[arrived] == 1, self._commute[1, arrived], 99)
        commuter = np.where(commuter > _LAST_TRIP, 99, commuter)
        self.leaves[arrived] = np.where(self.is_cab[arrived], cab, commuter)

    def _present_delays(self) -> NDArray[np.float32]:
        """Returns the delays of the present minute, for each day and crossing. They are computed an hour at a time."""
        hour, minute = divmod(int(self.hours * 3_600 / STEP_SECONDS + 1e-6), _STEPS_AN_HOUR)
        if hour != self._delays_hour:
            steps = (hour * _STEPS_AN_HOUR + np.arange(_STEPS_AN_HOUR)) * STEP_SECONDS
            delays = self.flow.delays((self._begins[:, None] + steps).ravel())
            self._delays, self._delays_hour = delays.reshape(len(self._begins), _STEPS_AN_HOUR, -1), hour
        return self._delays[:, minute]

    def _move(
        self, which: NDArray[np.integer[Any]], seconds: Floats, commit: bool
    ) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]], Floats, Floats]:
        """Moves vehicles along their ways. Returns crossing, next crossing, metres from the first, and mean km/h."""
        network, delays = self._streets, self._present_delays()
        crossing, following, metres = self.crossing[which], self.next[which], self.metres[which]
        destination, driver, group = self.destination[which], self.driver[which], self.group[which]
        left = np.where(self.is_driving[which], seconds[which] if commit else seconds, 0.0)
        is_moving = self.is_driving[which].copy()
        kmh = np.zeros(len(which))
        active = np.flatnonzero(is_moving)
        for _ in range(_MOST_CROSSINGS):
            if not len(active):
                break
            a, b = crossing[active], following[active]
            delay = (delays[group[active], a] + delays[group[active], b]) / 2
            kmh[active] = network.free_kmh[a, b] / (1 + delay) * driver[active]
            ahead = network.metres[a, b] - metres[active]
            goes = kmh[active] / 3.6 * left[active]
            crosses = goes >= ahead
            metres[active] = np.where(crosses, 0.0, metres[active] + goes)
            left[active] = np.where(crosses, left[active] - ahead / (kmh[active] / 3.6), 0.0)
            crossed = active[crosses]
            crossing[crossed] = following[crossed]
            following[crossed] = network.next_crossing[crossing[crossed], destination[crossed]]
            active = crossed[crossing[crossed] != destination[crossed]]
        if commit:
            self.crossing[which], self.next[which], self.metres[which] = crossing, following, metres
            self._arrive(which[is_moving & (crossing == destination)])
        return crossing, following, metres, kmh


def _begin(flow: Flow, day: int) -> float:
    """Returns the moment at which a vehicle's day begins: at four in the morning, whenever the clocks changed."""
    noon = flow.clock.begin(int(day)) + DAY_SECONDS / 2
    return noon + (DAY_BEGINS - float(flow.clock.at(noon).hour)) * 3_600
