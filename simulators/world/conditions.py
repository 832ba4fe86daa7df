"""What the sensors of a city measure: the true value of each quantity at the city's locations and at each moment."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from city.arrays import Floats
from simulators.world.chance import smooth
from simulators.world.flow import Flow
from simulators.world.places import weights
from simulators.world.rhythm import bell, demand, night_life
from simulators.world.streets import streets, to_metres
from simulators.world.weather import recent_rain, weather

LOCATIONS = {
    "downtown": (40.7105, -74.0085),
    "north_side": (40.7900, -73.9690),
    "south_side": (40.7240, -73.9880),
    "east_side": (40.7650, -73.9610),
    "west_side": (40.7560, -73.9900),
}
"""The centres of the locations (°): the Financial District, the Upper West Side, the East Village, Midtown's sides."""
_AROUND_METRES = 700.0
_LAGS = np.arange(25) * 600.0
_LINGERS_SECONDS = 5_400.0
_SHARES = np.exp(-_LAGS / _LINGERS_SECONDS) / np.exp(-_LAGS / _LINGERS_SECONDS).sum()
_CALM_WIND = 4.2
_WIND_LAGS = 10
"""The air of a place is blown away by the wind of the last hour and a half."""


@dataclass(frozen=True)
class Surroundings:
    """What is around a location (l,): how much traffic it has, how many people go out there, and its crossing."""

    traffic: Floats
    night: Floats
    crossing: NDArray[np.intp]


def surroundings() -> Surroundings:
    """Computes the surroundings of all locations, in their order."""
    crossings = streets().crossings
    centres = np.array([to_metres(np.array(a), np.array(b)) for a, b in LOCATIONS.values()])
    distance = ((crossings[None] - centres[:, None]) ** 2).sum(-1)
    near = np.exp(-distance / (2 * _AROUND_METRES**2))
    near /= near.sum(1, keepdims=True)
    places = weights()
    return Surroundings(
        near @ (0.45 + 0.55 * places.work + 0.3 * places.homes), near @ places.night, distance.argmin(1)
    )


def conditions(flow: Flow, seconds: Any) -> dict[str, Floats]:
    """Computes the quantities at moments (t,) and all locations, as (t, l) each, in the units of the contract.

    Noise follows the traffic. The air follows the traffic of the last four hours, and gets clean by wind and rain.
    """
    at, seed, around = np.asarray(seconds, float), flow.seed, surroundings()
    local, sky = flow.clock.at(at), weather(at, flow.seed, flow.clock)
    people = demand(local, seed)[:, None]
    # Streets with long queues let fewer vehicles pass, though more are there.
    queue = flow.delays(at, around.crossing)
    passing = 95 * people * around.traffic / (1 + 0.08 * queue)
    lagged = demand(flow.clock.at(at[:, None] - _LAGS), seed) @ _SHARES
    wet = np.tanh(recent_rain(at, seed))[:, None]
    number = np.arange(len(LOCATIONS))
    haze = smooth(at[:, None], 36_000.0, seed, "haze", 0 * number) + 0.25 * smooth(
        at[:, None], 7_200.0, seed, "air", number
    )
    blown = weather(at[:, None] - _LAGS[:_WIND_LAGS], seed, flow.clock).wind.mean(1)
    spread = (_CALM_WIND / np.maximum(blown, 0.5))[:, None] ** 0.6
    load = (0.75 * bell(local.hour, 8.0, 2.2) + bell(local.hour, 19.5, 2.6) + 0.35 * bell(local.hour, 13.5, 3.5))[
        :, None
    ]
    load = load * np.where(local.is_workday, 1.0, 0.85)[:, None]
    heating = np.maximum(12 - sky.temperature, 0)[:, None] + 1.3 * np.maximum(sky.temperature - 22, 0)[:, None]
    warmer = np.array([0.6, -0.5, 0.3, 0.1, 0.7])
    quantities = {
        "traffic": 3 + passing,
        "air_quality": 20
        + (12 + 95 * lagged[:, None] * around.traffic) * spread * np.exp(0.1 * haze) * (1 - 0.3 * wet),
        "noise": 46 + 19 * np.sqrt(passing / 95) + 4 * night_life(local)[:, None] * around.night + 3 * wet,
        "temperature": sky.temperature[:, None] + warmer,
        "humidity": sky.humidity[:, None],
        "precipitation": sky.precipitation[:, None],
        "wind": sky.wind[:, None],
        "consumption": 120 + 120 * load + 4 * heating,
        "voltage": 231 - 4 * load,
        "current": 30 + 32 * load + heating,
    }
    return {name: np.broadcast_to(values, (len(at), len(number))) for name, values in quantities.items()}


@lru_cache(maxsize=64)
def present_conditions(flow: Flow, minute: float) -> dict[str, Floats]:
    """Computes the quantities at one moment and all locations, as (1, l) each. Keeps the last ones."""
    return conditions(flow, np.array([minute]))
