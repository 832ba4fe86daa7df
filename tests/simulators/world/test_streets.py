"""No simulated vehicle is ever in the water, and the streets are connected."""

import json
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

import city_assets.traffic
from simulators.traffic import Traffic
from simulators.world.local import LocalClock
from simulators.world.streets import distance_to, streets, to_degrees, to_metres

_ON_A_BRIDGE_METRES = 30.0


@lru_cache
def waters() -> dict[str, Any]:
    """The shoreline that the map draws."""
    drawn: dict[str, Any] = json.loads((Path(city_assets.traffic.__file__).parent / "waters.json").read_text())
    return drawn


def winds_around(longitude: np.ndarray, latitude: np.ndarray, ring: list[list[float]]) -> np.ndarray:
    """Whether a ring goes around points: by the angles to its corners, which is not how the simulator does it."""
    corners = np.array(ring) - np.stack([longitude, latitude], -1)[:, None]
    angles = np.diff(np.unwrap(np.arctan2(corners[..., 1], corners[..., 0])))
    return np.asarray(np.abs(angles.sum(1)) > np.pi)


def is_in_water(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    islands = [winds_around(longitude, latitude, ring) for ring in waters()["islands"].values()]
    return np.asarray(winds_around(longitude, latitude, waters()["water"]) & ~np.any(islands, axis=0))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), day=st.integers(0, 3_650), second=st.floats(0, 5_399))
@example(seed=0, day=123, second=0.0)
def test_no_vehicle_is_ever_in_the_water(seed: int, day: int, second: float) -> None:
    """In no city, on no day of ten years, at no second."""
    city, begin = Traffic(seed, LocalClock("America/New_York", "US")), datetime(2026, 1, 1, 5, tzinfo=UTC)
    bridges = streets().bridges
    for moment in begin.timestamp() + day * 86_400 + second + np.arange(0, 86_400, 5_400):
        _, _, positions = city.reports(float(moment), 600)
        assert len(positions.speed)
        wet = is_in_water(positions.longitude, positions.latitude)
        metres = to_metres(positions.latitude, positions.longitude)
        assert (distance_to(metres[wet], bridges[:, 0], bridges[:, 1]) < _ON_A_BRIDGE_METRES).all()


def test_some_vehicles_cross_the_bridges() -> None:
    """Else the test before says nothing about them."""
    traffic, wet = Traffic(0, LocalClock("America/New_York", "US")), 0
    for minute in range(0, 60, 5):
        moment = datetime(2026, 5, 4, 13, minute, tzinfo=UTC)
        _, _, positions = traffic.reports(moment.timestamp(), 600)
        wet += is_in_water(positions.longitude, positions.latitude).sum()
    assert wet > 3


def test_every_crossing_leads_to_every_other_one() -> None:
    network = streets()
    count = len(network.crossings)
    here = np.repeat(np.arange(count), count).reshape(count, count)
    destination = here.T
    for _ in range(200):
        here = network.next_crossing[here, destination]
    assert (here == destination).all()


def test_degrees_and_metres_are_the_same_places() -> None:
    latitude, longitude = to_degrees(streets().crossings)
    assert np.allclose(to_metres(latitude, longitude), streets().crossings)
    assert 40.68 < latitude.min() < latitude.max() < 40.83
