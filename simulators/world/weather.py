"""The city's weather: temperature, humidity, precipitation and wind at each moment."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from city.arrays import Floats
from simulators.world.chance import smooth
from simulators.world.local import UTC_CLOCK, LocalClock

_HOUR, _DAY, _YEAR = 3_600.0, 86_400.0, 365.2425 * 86_400
# New York's monthly means go from 0.6 °C in January to 25 °C in July (NOAA climate normals 1991 to 2020).
_MEAN, _SEASON, _COLDEST = 12.8, 12.2, 20 * _DAY
_DAILY_SWING, _WARMEST_HOUR = 4.0, 15.0
_SPELL, _SPELL_SWING = 2.5 * _DAY, 3.0
_RAINS_ABOVE = 1.1
"""It rains while a standard normal number is above this: a tenth of the time, in showers and in rain of hours."""
_WIND_MEAN = 4.2


@dataclass(frozen=True)
class Weather:
    """The weather at moments: temperature (°C), humidity (%), precipitation (mm/h) and wind (m/s), an array each."""

    temperature: Floats
    humidity: Floats
    precipitation: Floats
    wind: Floats


def weather(seconds: Any, seed: int, clock: LocalClock = UTC_CLOCK) -> Weather:
    """Computes the weather at moments, which are seconds since 1970 (any shape)."""
    at = np.asarray(seconds, float)
    hour = clock.at(at).hour
    rain = precipitation(at, seed)
    spell = smooth(at, _SPELL, seed, "spell")
    daily = _DAILY_SWING * np.cos((hour - _WARMEST_HOUR) * (2 * np.pi / 24))
    clouds = np.clip(smooth(at, 8 * _HOUR, seed, "clouds") * 0.5 + 0.5, 0, 1)
    temperature = (
        _MEAN - _SEASON * np.cos((at - _COLDEST) * (2 * np.pi / _YEAR)) + _SPELL_SWING * spell
        + daily * (1.2 - 0.6 * clouds) - 2.0 * np.tanh(recent_rain(at, seed))
    )  # fmt: skip
    humidity = (
        64
        - 2.2 * daily
        + 9 * clouds
        + 18 * np.tanh(recent_rain(at, seed))
        + 4 * smooth(at, 3 * _HOUR, seed, "humidity")
    )
    gusts = smooth(at, 6 * _HOUR, seed, "wind") * 0.45 + smooth(at, 0.5 * _HOUR, seed, "gusts") * 0.15
    breeze = 1 + 0.25 * np.cos((hour - 16) * (2 * np.pi / 24))
    wind = _WIND_MEAN * np.exp(gusts - 0.11) * breeze * (1 + 0.3 * np.tanh(rain))
    return Weather(temperature, np.clip(humidity, 15, 100), rain, wind)


def precipitation(seconds: Any, seed: int) -> Floats:
    """Computes the precipitation (mm/h) at moments. It is 0 most of the time."""
    at = np.asarray(seconds, float)
    front = 0.85 * smooth(at, 5 * _HOUR, seed, "front") + 0.53 * smooth(at, 0.75 * _HOUR, seed, "shower")
    rain: Floats = 2.5 * np.expm1(1.2 * np.maximum(front - _RAINS_ABOVE, 0))
    return rain


_LAGS = np.arange(13) * 300.0
_DRYING_SECONDS = 1_500.0
_SHARES = np.exp(-_LAGS / _DRYING_SECONDS) / np.exp(-_LAGS / _DRYING_SECONDS).sum()


def recent_rain(seconds: Any, seed: int) -> Floats:
    """Computes how wet the streets are (mm/h): the mean rain of the last hour, with less of the older.

    Traffic slows down as queues build up behind the first rain, and recovers when the streets dry.
    """
    rain: Floats = precipitation(np.asarray(seconds, float)[..., None] - _LAGS, seed) @ _SHARES
    return rain
