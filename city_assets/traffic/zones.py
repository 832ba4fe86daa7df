"""The taxi zones of the TLC: their table, and their centres, computed from the shapes that the TLC publishes."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from city.arrays import Floats

SHAPES = "taxi_zones.zip"
"""The TLC's file of shapes. Its coordinates are feet of New York's state plane, Long Island zone (EPSG:2263)."""

# The ellipsoid GRS 80, and Lambert's conformal conic projection with two standard parallels (Snyder 1987, p. 107).
_AXIS, _FLATTENING = 6_378_137.0, 1 / 298.257222101
_ECCENTRICITY = float(np.sqrt(_FLATTENING * (2 - _FLATTENING)))
_ORIGIN, _MERIDIAN = np.radians(40 + 10 / 60), np.radians(-74.0)
_PARALLELS = np.radians(40 + 40 / 60), np.radians(41 + 2 / 60)
_FALSE_EASTING = 300_000.0  # metres
_FOOT = 1200 / 3937  # metres in a foot of the US survey


def zone_centres(archive: bytes) -> pl.DataFrame:
    """Returns the zones of the TLC's archive of shapes: LocationID, Borough, Zone, lon and lat (degrees, WGS 84).

    A centre is that of the zone's area. Raises ValueError for bytes that are no such archive.
    """
    import shapefile

    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            files = {Path(name).suffix.lower(): opened.read(name) for name in opened.namelist()}
        parts = {kind: io.BytesIO(files[f".{kind}"]) for kind in ("shp", "shx", "dbf")}
        with shapefile.Reader(**parts) as reader:
            rows = [
                (record["LocationID"], record["borough"], record["zone"], *_centre(shape.points, shape.parts))
                for shape, record in zip(reader.iterShapes(), reader.iterRecords(), strict=True)
            ]
    except (zipfile.BadZipFile, KeyError, IndexError, shapefile.ShapefileException) as error:
        raise ValueError(f"{SHAPES} has no taxi zones: {type(error).__name__}: {error}") from None
    named = pl.DataFrame(rows, schema=["LocationID", "Borough", "Zone", "east", "north"], orient="row")
    lon, lat = to_degrees(named["east"].to_numpy(), named["north"].to_numpy())
    centres = named.select(pl.col("LocationID").cast(pl.Int64), "Borough", "Zone")
    return (
        centres.with_columns(lon=pl.Series(lon), lat=pl.Series(lat))
        .unique("LocationID", keep="first", maintain_order=True)
        .sort("LocationID")
    )


def _centre(points: Sequence[tuple[float, float]], parts: Sequence[int]) -> tuple[float, float]:
    """Returns the centre of the area of rings: of islands, whose corners go round clockwise, and of holes."""
    total, moment = 0.0, np.zeros(2)
    for begin, end in zip(parts, [*parts[1:], len(points)], strict=True):
        ring = np.asarray(points[begin:end], float)[:, :2]
        x, y = ring.T
        cross = x[:-1] * y[1:] - x[1:] * y[:-1]
        total += cross.sum() / 2
        moment += np.array([((x[:-1] + x[1:]) * cross).sum(), ((y[:-1] + y[1:]) * cross).sum()]) / 6
    if not total:
        east, north = np.asarray(points, float)[:, :2].mean(0)
        return float(east), float(north)
    return float(moment[0] / total), float(moment[1] / total)


def _t(latitude: Floats) -> Floats:
    sine = _ECCENTRICITY * np.sin(latitude)
    found: Floats = np.tan(np.pi / 4 - latitude / 2) / ((1 - sine) / (1 + sine)) ** (_ECCENTRICITY / 2)
    return found


def _m(latitude: Floats) -> Floats:
    found: Floats = np.cos(latitude) / np.sqrt(1 - (_ECCENTRICITY * np.sin(latitude)) ** 2)
    return found


_T = _t(np.array(_PARALLELS))
_M = _m(np.array(_PARALLELS))
_N = float(np.log(_M[0] / _M[1]) / np.log(_T[0] / _T[1]))
_F = float(_M[0] / (_N * _T[0] ** _N))
_RHO = _AXIS * _F * float(_t(np.array([_ORIGIN]))[0]) ** _N


def to_degrees(east: Floats, north: Floats) -> tuple[Floats, Floats]:
    """Converts feet of the state plane to longitude and latitude in degrees."""
    x, y = east * _FOOT - _FALSE_EASTING, _RHO - north * _FOOT
    t = (np.hypot(x, y) / (_AXIS * _F)) ** (1 / _N)
    latitude = np.pi / 2 - 2 * np.arctan(t)
    for _ in range(6):  # converges by three digits each time
        sine = _ECCENTRICITY * np.sin(latitude)
        latitude = np.pi / 2 - 2 * np.arctan(t * ((1 - sine) / (1 + sine)) ** (_ECCENTRICITY / 2))
    return np.degrees(np.arctan2(x, y) / _N + _MERIDIAN), np.degrees(latitude)
