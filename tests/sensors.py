"""The simulated sensors one by one, for tests that need the events of a few."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from simulators.environment import KINDS, LOCATIONS, Announcements, Sensors, readings
from simulators.environment import fleet as all_sensors
from simulators.faults import FaultRates
from simulators.world.flow import Flow


@dataclass(frozen=True)
class Sensor:
    sensors: Sensors
    seed: int
    number: int

    @property
    def id(self) -> str:
        return self.sensors.sensor_id(self.number)

    @property
    def kind(self) -> str:
        return KINDS[self.sensors.kind[self.number]].name

    @property
    def location(self) -> str:
        return LOCATIONS[self.sensors.location[self.number]]

    def reading(self, moment: datetime) -> dict[str, Any]:
        return next(readings(self.sensors, Flow(self.seed), np.array([self.number]), moment))

    def announcement(self, moment: datetime) -> dict[str, Any]:
        return Announcements(self.sensors, self.seed).payload(self.number, moment)


def fleet(rates: FaultRates, seed: int) -> list[Sensor]:
    sensors = all_sensors(rates, seed)
    return [Sensor(sensors, seed, number) for number in range(len(sensors))]
