"""The streets: Manhattan's grid, turned by 29 degrees, the grids across the East River, and the bridges between them.

A street network is a graph of crossings. Positions are metres east and north of ORIGIN.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import city_assets.traffic
from city.arrays import Floats

ORIGIN = (40.75, -73.98)
"""Latitude and longitude of the place from which positions are measured."""
_METRES_PER_DEGREE = 111_320.0
_METRES_EAST = _METRES_PER_DEGREE * np.cos(np.radians(ORIGIN[0]))
_TURN = np.radians(29.0)  # the avenues run 29 degrees east of north (the Commissioners' Plan of 1811)
AVENUES = np.array([np.sin(_TURN), np.cos(_TURN)])
"""The direction of the avenues, uptown: east and north."""
_BANK = 40.0
"""No street is nearer to the water than this, in metres."""
_SAMPLE = 25.0

FREE_KMH = {"avenue": 40.0, "street": 34.0, "bridge": 48.0}
"""The speed on an empty street, by its kind."""
_BRIDGES = {
    "Brooklyn Bridge": ((40.7122, -74.0040), (40.6985, -73.9900)),
    "Manhattan Bridge": ((40.7160, -73.9945), (40.6985, -73.9850)),
    "Williamsburg Bridge": ((40.7180, -73.9860), (40.7105, -73.9590)),
    "Queensboro Bridge": ((40.7610, -73.9640), (40.7510, -73.9400)),
}
# The regions: south, north, west and east of their box, and the distances between their avenues and streets (m).
_MANHATTAN = ((40.700, 40.822, -74.02, -73.925), 260.0, 240.0)
_ACROSS = ((40.684, 40.768, -73.998, -73.915), 420.0, 360.0)


@dataclass(frozen=True)
class Streets:
    """A street network of n crossings and m streets, each of which can be driven in both directions.

    `next_crossing[a, b]` is the crossing after a on the quickest way from a to b on empty streets.
    """

    crossings: Floats
    """(n, 2): metres east and north of ORIGIN."""
    ends: NDArray[np.intp]
    """(m, 2): the crossings at a street's ends."""
    free_kmh: NDArray[np.float32]
    """(n, n): the speed on the empty street between two crossings, 0 where there is none."""
    metres: NDArray[np.float32]
    """(n, n): the length of the street between two crossings, 0 where there is none."""
    next_crossing: NDArray[np.int16]
    """(n, n): the next crossing on the quickest way."""
    bridges: Floats
    """(b, 2, 2): the ends of the bridges, as metres east and north of ORIGIN."""


def to_metres(latitude: Floats, longitude: Floats) -> Floats:
    """Converts degrees to metres east and north of ORIGIN, as (…, 2)."""
    latitude, longitude = np.asarray(latitude, float), np.asarray(longitude, float)
    return np.stack([(longitude - ORIGIN[1]) * _METRES_EAST, (latitude - ORIGIN[0]) * _METRES_PER_DEGREE], -1)


def to_degrees(metres: Floats) -> tuple[Floats, Floats]:
    """Converts metres east and north of ORIGIN (…, 2) to latitudes and longitudes."""
    return ORIGIN[0] + metres[..., 1] / _METRES_PER_DEGREE, ORIGIN[1] + metres[..., 0] / _METRES_EAST


@lru_cache
def shoreline() -> tuple[Floats, tuple[Floats, ...], Floats]:
    """Returns the rings of the water, of the islands in it, and of Central Park, in metres. The map draws the same."""
    waters = json.loads((Path(city_assets.traffic.__file__).parent / "waters.json").read_text())

    def ring(points: list[list[float]]) -> Floats:
        longitude, latitude = np.array(points).T
        return to_metres(latitude, longitude)

    islands = tuple(ring(waters["islands"][name]) for name in ("Manhattan", "Roosevelt Island"))
    return ring(waters["water"]), islands, ring(waters["parks"]["Central Park"])


def is_inside(points: Floats, ring: Floats) -> NDArray[np.bool_]:
    """Returns whether points (n, 2) are inside of a closed ring (k, 2), by the number of edges to their east."""
    x, y = points[:, 0, None], points[:, 1, None]
    (x1, y1), (x2, y2) = ring[:-1].T, ring[1:].T
    crosses = (y1 > y) != (y2 > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        east = x < (x2 - x1) * (y - y1) / (y2 - y1) + x1
    odd: NDArray[np.bool_] = (crosses & east).sum(1) % 2 == 1
    return odd


def distance_to(points: Floats, begin: Floats, end: Floats) -> Floats:
    """Returns the distance of points (n, 2) to the nearest of the lines from `begin` to `end`, (k, 2) each."""
    along = end - begin
    length = np.maximum((along**2).sum(-1), 1e-9)
    share = np.clip(((points[:, None] - begin) * along).sum(-1) / length, 0, 1)
    nearest = begin + share[..., None] * along
    distances: Floats = np.sqrt(((points[:, None] - nearest) ** 2).sum(-1)).min(1)
    return distances


def is_land(points: Floats, bank: float = 0.0) -> NDArray[np.bool_]:
    """Returns whether points (n, 2) are on land, and at least `bank` metres from the water."""
    water, islands, _ = shoreline()
    manhattan = islands[0]
    dry = ~is_inside(points, water) | is_inside(points, manhattan)
    if bank:
        for ring in (water, *islands):
            dry &= distance_to(points, ring[:-1], ring[1:]) >= bank
    return dry


_network: list[Streets] = []


def streets() -> Streets:
    """Returns the street network, which is the same for every seed. Builds it at the first call."""
    if not _network:
        use_streets(build_streets())
    return _network[0]


def has_streets() -> bool:
    """Returns whether the street network is there, so that `streets` builds nothing."""
    return bool(_network)


def use_streets(network: Streets) -> None:
    """Makes `streets` return this network, which is a stored one."""
    _network[:] = [network]


def build_streets() -> Streets:
    """Builds the street network, which takes most of a second and loads SciPy."""
    water, islands, park = shoreline()
    nodes, edges, kinds = list[Floats](), list[NDArray[np.intp]](), list[str]()
    for (box, across, along), is_manhattan in ((_MANHATTAN, True), (_ACROSS, False)):
        places, is_in_box = _grid(box, across, along)
        inside = is_inside(places, islands[0]) if is_manhattan else ~is_inside(places, water) & _is_east(places)
        inside &= is_in_box.ravel() & is_land(places, _BANK) & ~is_inside(places, park)
        number = np.full(is_in_box.shape, -1)
        number.reshape(-1)[inside] = np.arange(inside.sum()) + len(nodes)
        nodes += list(places[inside])
        for kind, first, second in (
            ("avenue", number[:, :-1], number[:, 1:]),
            ("street", number[:-1], number[1:]),
        ):
            pairs = np.stack([first.ravel(), second.ravel()], -1)
            pairs = pairs[(pairs >= 0).all(1)]
            edges.append(pairs)
            kinds += [kind] * len(pairs)
    crossings = np.array(nodes)
    ends = np.concatenate(edges)
    dry = _is_street_dry(crossings, ends)
    ends, kinds = ends[dry], [kind for kind, is_dry in zip(kinds, dry, strict=True) if is_dry]
    ends = np.concatenate([ends, _bridges(crossings)])
    kinds += ["bridge"] * len(_BRIDGES)
    return _connect(crossings, ends, np.array([FREE_KMH[kind] for kind in kinds]))


def _grid(box: tuple[float, float, float, float], across: float, along: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Returns the crossings of the turned grid that covers a box (i * j, 2), and which are in the box (i, j)."""
    south, north, west, east = box
    corners = to_metres(np.array([south, south, north, north]), np.array([west, east, west, east]))
    forward = AVENUES
    right = np.array([np.cos(_TURN), -np.sin(_TURN)])
    columns, rows = corners @ right, corners @ forward
    i = np.arange(np.floor(columns.min() / across), np.ceil(columns.max() / across) + 1) * across
    j = np.arange(np.floor(rows.min() / along), np.ceil(rows.max() / along) + 1) * along
    grid = i[:, None, None] * right + j[None, :, None] * forward
    places = grid.reshape(-1, 2)
    latitude, longitude = to_degrees(places)
    is_in_box = (latitude > south) & (latitude < north) & (longitude > west) & (longitude < east)
    return places, is_in_box.reshape(grid.shape[:2])


def _is_east(points: Floats) -> NDArray[np.bool_]:
    """Returns whether points are east of the East River, and not beyond the Harlem River."""
    islands = shoreline()[1]
    east: NDArray[np.bool_] = (points[:, 0] > 0.3 * points[:, 1] - 1_500) & ~is_inside(points, islands[1])
    return east


def _is_street_dry(crossings: Floats, ends: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Returns whether each street is on land along its whole length, and not in the park."""
    first, second = crossings[ends[:, 0]], crossings[ends[:, 1]]
    park = shoreline()[2]
    dry = np.ones(len(ends), bool)
    longest = np.sqrt(((second - first) ** 2).sum(1)).max()
    for share in np.linspace(0, 1, int(np.ceil(longest / _SAMPLE)) + 1):
        points = first + share * (second - first)
        dry &= is_land(points, _BANK / 2) & ~is_inside(points, park)
    return dry


def _bridges(crossings: Floats) -> NDArray[np.intp]:
    """Returns the ends (b, 2) of the bridges: the crossings nearest to where they begin and end."""
    heads = np.array([[to_metres(*map(np.array, end)) for end in pair] for pair in _BRIDGES.values()])
    nearest: NDArray[np.intp] = ((heads[:, :, None] - crossings) ** 2).sum(-1).argmin(-1)
    return nearest


def _connect(crossings: Floats, ends: NDArray[np.intp], free_kmh: Floats) -> Streets:
    """Keeps the largest part of the network that is connected, and finds the quickest ways in it."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components, dijkstra

    count = len(crossings)
    length = np.sqrt(((crossings[ends[:, 0]] - crossings[ends[:, 1]]) ** 2).sum(1))
    links = csr_matrix((length, (ends[:, 0], ends[:, 1])), shape=(count, count))
    part = connected_components(links, directed=False)[1]
    kept = part == np.bincount(part).argmax()
    number = np.cumsum(kept) - 1
    used = kept[ends].all(1)
    crossings, ends = crossings[kept], number[ends[used]]
    length, free_kmh = length[used], free_kmh[used]
    count = len(crossings)

    def matrix(values: Floats) -> NDArray[np.float32]:
        dense = np.zeros((count, count), np.float32)
        dense[ends[:, 0], ends[:, 1]] = dense[ends[:, 1], ends[:, 0]] = values
        return dense

    hours = csr_matrix(matrix(length / free_kmh))
    before = dijkstra(hours, directed=False, return_predecessors=True)[1]
    # On a street that goes both ways, the crossing before a on the way from b to a is the next one from a to b.
    next_crossing = before.T.astype(np.int16)
    np.fill_diagonal(next_crossing, np.arange(count))
    bridges = crossings[ends[free_kmh == FREE_KMH["bridge"]]]
    return Streets(crossings, ends, matrix(free_kmh), matrix(length), next_crossing, bridges)
