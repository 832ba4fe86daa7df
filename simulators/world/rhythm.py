"""The rhythm of a city's day: how many people are on their way, at each local hour of working days and other days."""

from typing import Any

import numpy as np

from city.arrays import Floats
from simulators.world.chance import normal
from simulators.world.local import LocalTimes

MORNING, EVENING = 8.5, 17.5
"""The local hours of the two rush hours' peaks."""
_MORNING_SPREAD, _EVENING_SPREAD = 1.1, 1.5
_DAY_BEGINS = 4.0
"""The hour at which a day of people begins: who is on the way at one in the night belongs to the day before."""
_AMPLITUDE_SPREAD, _SHIFT_SPREAD = 0.06, 0.15


def bell(hour: Any, peak: float, spread: float) -> Floats:
    """Returns the height (0 to 1) of a bell curve on the 24-hour circle, at local hours."""
    distance = np.abs((np.asarray(hour) - peak + 12) % 24 - 12)
    height: Floats = np.exp(-((distance / spread) ** 2) / 2)
    return height


def people_day(at: LocalTimes) -> Any:
    """Returns the number of the day that people count a moment to: it begins at four in the morning."""
    return at.day - (at.hour < _DAY_BEGINS)


def demand(at: LocalTimes, seed: int) -> Floats:
    """Computes how many people are on their way, from 0 at night to about 1 at the peak of a working day.

    Each day differs a little: in how much traffic it has, and in when its peaks come.
    """
    day = people_day(at)
    hour = at.hour - _SHIFT_SPREAD * normal(seed, "shift", day)
    amplitude = np.exp(_AMPLITUDE_SPREAD * normal(seed, "amount", day))
    midday, late = bell(hour, 13.5, 3.2), bell(hour, 22.0, 2.5)
    peaks = np.maximum(bell(hour, MORNING, _MORNING_SPREAD), bell(hour, EVENING, _EVENING_SPREAD))
    working = np.maximum(peaks, 0.55 * midday) + 0.15 * late
    free = 0.42 * bell(hour, 15.0, 3.6) + 0.22 * late
    people: Floats = (0.06 + np.where(at.is_workday, working, free)) * amplitude
    return people


def night_life(at: LocalTimes) -> Floats:
    """Computes how many people go out, from 0 to 1: in the evening, and late on the nights before free days."""
    late = np.where(np.isin((at.weekday - (at.hour < _DAY_BEGINS) - 1) % 7 + 1, (5, 6)), 1.0, 0.45)
    people: Floats = bell(at.hour, 22.5, 2.2) * late
    return people
