"""Simulates vehicles that drive through the city's streets, faster at night than in the rush hour."""

import math
import random
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from city.settings import Settings
from city.streaming.heartbeat import Heartbeat
from city_assets.traffic.contract import VEHICLE_POSITIONS
from simulators.clock import UTC_CLOCK, LocalClock, LocalTime, Progress, ignore, iso
from simulators.faults import DEFAULT_FAULTS, FaultRates, Faults
from simulators.to_kafka import send

DEFAULT_RATE = 300.0
_SECONDS_BETWEEN = 2.0  # a vehicle reports this often, so a rate of 300 events a second is 600 vehicles
_BOX = (40.70, 40.80, -74.02, -73.93)  # south, north, west, east: Manhattan
_METRES_PER_DEGREE = 111_320.0
# Latitude, longitude, the share of speed that is lost there, and the radius (m): Midtown, the bridges, two tunnels.
_CROWDED = (
    (40.755, -73.983, 0.75, 1_100.0),
    (40.713, -74.003, 0.6, 700.0),
    (40.761, -73.965, 0.5, 500.0),
    (40.727, -74.011, 0.6, 500.0),
)


class Vehicle:
    """Simulates a vehicle that drives on a grid of streets, turns now and then, and takes trips."""

    def __init__(self, number: int, chance: random.Random, clock: LocalClock = UTC_CLOCK) -> None:
        self.clock = clock
        self.id = f"vehicle_{number:05d}"
        self._random = chance
        south, north, west, east = _BOX
        self.latitude, self.longitude = chance.uniform(south, north), chance.uniform(west, east)
        self._heading = chance.choice((0, 90, 180, 270))
        self.speed = chance.uniform(5, 40)
        self._trips = 0
        self._trip_until: datetime | None = None
        self._at: datetime | None = None

    def report(self, moment: datetime) -> dict[str, Any]:
        """Moves the vehicle to `moment`. Returns its position, a payload of the contract `vehicle_positions`."""
        seconds = min((moment - self._at).total_seconds(), 30.0) if self._at else 0.0
        self._at = moment
        target_speed = 38 * free_flow(self.clock.at(moment)) * flow_at(self.latitude, self.longitude)
        self.speed = max(0.0, self.speed + 0.3 * (target_speed - self.speed) + self._random.gauss(0, 4))
        if self._random.random() < 0.08:
            self._heading = (self._heading + self._random.choice((90, 270))) % 360
        self._move(self.speed / 3.6 * seconds)
        payload = {
            "vehicle_id": self.id,
            "timestamp": iso(moment),
            "latitude": round(self.latitude, 6),
            "longitude": round(self.longitude, 6),
            "speed": round(min(self.speed, 120.0), 1),
        }
        trip = self._current_trip(moment)
        return payload | {"trip_id": trip} if trip else payload

    def _current_trip(self, moment: datetime) -> str | None:
        if self._trip_until is None or moment >= self._trip_until:
            busy = self._random.random() < 0.7
            self._trips += busy
            self._trip_until = datetime.fromtimestamp(
                moment.timestamp() + self._random.uniform(120, 1200), moment.tzinfo
            )
            self._busy = busy
        return f"trip_{self.id[8:]}_{self._trips}" if self._busy else None

    def _move(self, metres: float) -> None:
        angle = math.radians(self._heading)
        self.latitude += metres * math.cos(angle) / _METRES_PER_DEGREE
        self.longitude += metres * math.sin(angle) / (_METRES_PER_DEGREE * math.cos(math.radians(self.latitude)))
        south, north, west, east = _BOX
        if not (south < self.latitude < north and west < self.longitude < east):
            self._heading = (self._heading + 180) % 360
            self.latitude = min(max(self.latitude, south), north)
            self.longitude = min(max(self.longitude, west), east)


class Simulator:
    """Simulates the vehicles, and sends their positions to Kafka."""

    def __init__(
        self, config: Settings, rate: float = DEFAULT_RATE, faults: float = DEFAULT_FAULTS, seed: int = 0
    ) -> None:
        self.config, self.rate = config, rate
        chance, clock = random.Random(seed), LocalClock.from_settings(config)
        self.vehicles = [Vehicle(number, chance, clock) for number in range(max(1, round(rate * _SECONDS_BETWEEN)))]
        self._faults = Faults(FaultRates.scaled(faults), seed + 1, spiked="speed")
        self._turn = 0
        self.heartbeat = Heartbeat(config, "simulator-traffic", is_loop=True)

    def events(self, moment: datetime, count: int) -> list[tuple[str, bytes]]:
        """Returns the messages of `count` positions, vehicle by vehicle, as (key, message)."""
        messages = []
        for _ in range(count):
            vehicle = self.vehicles[self._turn % len(self.vehicles)]
            self._turn += 1
            messages += [(vehicle.id, message) for message in self._faults.messages([vehicle.report(moment)])]
        return messages

    def run(self, stop: threading.Event, progress: Progress = ignore) -> None:
        """Sends events until `stop` is set."""
        send(self.config.kafka, [VEHICLE_POSITIONS], self._messages, self.rate, self.heartbeat, stop, progress)

    def _messages(self, moment: datetime, count: int) -> Iterator[tuple[str, str, bytes]]:
        return ((VEHICLE_POSITIONS.topic, key, message) for key, message in self.events(moment, count))


def flow_at(latitude: float, longitude: float) -> float:
    """Returns the share of the speed that is possible at a place. It is less the nearer a crowded place is."""
    crowded = 0.0
    for place in _CROWDED:
        north = (latitude - place[0]) * _METRES_PER_DEGREE
        east = (longitude - place[1]) * _METRES_PER_DEGREE * math.cos(math.radians(latitude))
        crowded += place[2] * math.exp(-(north**2 + east**2) / (2 * place[3] ** 2))
    return 1 - min(crowded, 0.8)


def free_flow(now: LocalTime) -> float:
    """Returns the share of the free speed that is possible at a local hour: 1 at night, about a half in rush hours."""
    rush = max(math.exp(-(((now.hour - peak) / 1.5) ** 2) / 2) for peak in (8.5, 17.5))
    return 1 - 0.5 * rush * (1.0 if now.is_workday else 0.5)
