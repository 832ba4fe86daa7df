"""The places of the city: where people live, work and go out, as weights of the crossings."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from city.arrays import Floats
from simulators.world.streets import streets, to_metres


@dataclass(frozen=True)
class Place:
    """A place with its centre (degrees), its radius (m), and how many people live, work and go out there (relative)."""

    latitude: float
    longitude: float
    radius: float
    homes: float = 0.0
    work: float = 0.0
    night: float = 0.0


PLACES = {
    "Midtown": Place(40.755, -73.983, 1_100, homes=0.2, work=1.6, night=0.7),
    "Financial District": Place(40.7075, -74.010, 700, homes=0.2, work=1.0, night=0.2),
    "Chelsea": Place(40.743, -73.996, 900, homes=0.4, work=0.6, night=0.6),
    "West Village": Place(40.733, -74.004, 600, homes=0.4, work=0.2, night=0.9),
    "East Village": Place(40.724, -73.984, 900, homes=0.8, work=0.2, night=1.0),
    "Upper East Side": Place(40.774, -73.958, 1_100, homes=1.1, work=0.3, night=0.3),
    "Upper West Side": Place(40.787, -73.974, 1_100, homes=1.0, work=0.2, night=0.3),
    "Harlem": Place(40.808, -73.950, 1_200, homes=0.9, work=0.2, night=0.2),
    "Long Island City": Place(40.748, -73.936, 900, homes=0.5, work=0.4, night=0.1),
    "Williamsburg": Place(40.714, -73.953, 1_000, homes=0.8, work=0.2, night=0.7),
    "Downtown Brooklyn": Place(40.692, -73.985, 700, homes=0.5, work=0.4, night=0.2),
}
_EVERYWHERE = 0.03  # nowhere has nobody


@dataclass(frozen=True)
class Weights:
    """How many people live, work and go out at each crossing (n,), relative to the busiest one."""

    homes: Floats
    work: Floats
    night: Floats


@lru_cache
def weights() -> Weights:
    """Computes the weights of all crossings. A place has a bell curve around its centre."""
    crossings = streets().crossings

    def weight(purpose: str) -> Floats:
        total = np.full(len(crossings), _EVERYWHERE)
        for place in PLACES.values():
            centre = to_metres(np.array(place.latitude), np.array(place.longitude))
            distance = ((crossings - centre) ** 2).sum(1)
            total += getattr(place, purpose) * np.exp(-distance / (2 * place.radius**2))
        scaled: Floats = total / total.max()
        return scaled

    return Weights(weight("homes"), weight("work"), weight("night"))
