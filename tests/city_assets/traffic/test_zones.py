"""The taxi zones: their centres are those of the shapes that the TLC publishes."""

import io
import zipfile

import numpy as np
import polars as pl
import pytest

from city.arrays import Floats
from city_assets.traffic import zones as projection
from city_assets.traffic.zones import to_degrees, zone_centres


def to_feet(longitude: Floats, latitude: Floats) -> tuple[Floats, Floats]:
    """Converts longitude and latitude in degrees to feet of the state plane: the inverse of `to_degrees`."""
    rho = projection._AXIS * projection._F * projection._t(np.radians(latitude)) ** projection._N
    theta = projection._N * (np.radians(longitude) - projection._MERIDIAN)
    east = (rho * np.sin(theta) + projection._FALSE_EASTING) / projection._FOOT
    return east, (projection._RHO - rho * np.cos(theta)) / projection._FOOT


def archive(*zones: tuple[int, str, str, list[list[tuple[float, float]]]]) -> bytes:
    """An archive like the TLC's: of zones with their id, borough, name, and rings in degrees."""
    import shapefile

    files = {kind: io.BytesIO() for kind in ("shp", "shx", "dbf")}
    with shapefile.Writer(**files) as writer:
        for name, kind in (("LocationID", "N"), ("borough", "C"), ("zone", "C")):
            writer.field(name, kind)
        for number, borough, zone, rings in zones:
            feet = [list(zip(*to_feet(*map(np.array, zip(*ring, strict=True))), strict=True)) for ring in rings]
            writer.poly(feet)
            writer.record(number, borough, zone)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        for kind, file in files.items():
            opened.writestr(f"taxi_zones/taxi_zones.{kind}", file.getvalue())
    return packed.getvalue()


def square(lon: float, lat: float, half: float) -> list[tuple[float, float]]:
    corners = [(-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -1)]  # clockwise, as the rings of islands are
    return [(lon + half * x, lat + half * y) for x, y in corners]


def test_feet_of_the_state_plane_are_degrees() -> None:
    """The point of origin, and the Empire State Building as the city's own map has it."""
    lon, lat = to_degrees(np.array([984_250.0, 988_211.0]), np.array([0.0, 211_866.0]))
    assert lon[0] == pytest.approx(-74.0, abs=1e-9)
    assert lat[0] == pytest.approx(40 + 10 / 60, abs=1e-9)
    assert (lon[1], lat[1]) == pytest.approx((-73.9857, 40.7482), abs=5e-4)
    again = to_feet(lon, lat)
    assert again[0] == pytest.approx([984_250.0, 988_211.0], abs=1e-3)
    assert again[1] == pytest.approx([0.0, 211_866.0], abs=1e-3)


def test_a_centre_is_that_of_the_area() -> None:
    hole = square(-73.97, 40.75, 0.005)[::-1]
    by_zone = zone_centres(
        archive(
            (4, "Manhattan", "Alphabet City", [square(-73.98, 40.72, 0.01)]),
            (2, "Queens", "Two islands", [square(-73.8, 40.6, 0.01), square(-73.7, 40.6, 0.01)]),
            (3, "Bronx", "With a hole", [square(-73.98, 40.75, 0.02), hole]),
        )
    )
    assert by_zone.select("LocationID", "Borough").rows() == [(2, "Queens"), (3, "Bronx"), (4, "Manhattan")]
    centres = {number: (lon, lat) for number, lon, lat in by_zone.select("LocationID", "lon", "lat").iter_rows()}
    assert centres[4] == pytest.approx((-73.98, 40.72), abs=1e-4)
    assert centres[2] == pytest.approx((-73.75, 40.6), abs=1e-4)
    assert centres[3] == pytest.approx((-73.98 - 0.01 / 15, 40.75), abs=1e-4)
    assert by_zone.schema["LocationID"] == pl.Int64


@pytest.mark.parametrize("wrong", [b"<html>", b"", archive()[:40]])
def test_what_is_no_archive_is_told(wrong: bytes) -> None:
    with pytest.raises(ValueError, match="taxi_zones.zip has no taxi zones"):
        zone_centres(wrong)
