"""The transforms of the traffic's silver, gold and feature tables: functions of frames, on any engine."""

from typing import Any, Literal

import narwhals as nw

from city.features.on_demand import Rows
from city.tables.calendar import HOUR, on_calendar
from city.tables.model import Frame

Level = Literal["low", "medium", "high"]
"""The levels of congestion."""

# New York's taxis average 11 to 13 km/h in Midtown's peak and 25 km/h at night (NYC DOT Mobility Report).
SLOW_KMH, FREE_KMH = 12.0, 22.0

# The area is the five boroughs, Newark and their surroundings. The speed limits and the traffic allow no faster trip.
SOUTH, NORTH, WEST, EAST = 40.45, 41.05, -74.35, -73.60
FASTEST_KMH = 120.0
LONGEST_HOURS = 3
HOTSPOTS = 50
_KM_PER_DEGREE = 111.32
_ENDS = ("pickup_latitude", "pickup_longitude", "dropoff_latitude", "dropoff_longitude")


def level(speed: float | None) -> Level | None:
    """Returns the congestion level of a mean speed (km/h), by the same limits as `levels`."""
    if speed is None:
        return None
    return "high" if speed < SLOW_KMH else "medium" if speed < FREE_KMH else "low"


def cells_hourly(positions: Frame) -> Frame:
    """Computes volume, mean and standard deviation of the speed (km/h), and congestion of each cell and hour."""
    hours = positions.with_columns(hour=nw.col("timestamp").dt.truncate("1h"))
    return hours.group_by(*HOUR, "cell").agg(**_vehicle_volume(), **spread("speed")).with_columns(congestion())


def cells_daily(positions: Frame) -> Frame:
    """Computes the columns of `cells_hourly` for each cell and day."""
    return positions.group_by("day", "cell").agg(**_vehicle_volume(), **spread("speed")).with_columns(congestion())


def trips(trips: Frame, calendar: Frame) -> Frame:
    """Keeps the trips that can have happened, and adds their duration, mean speed and local calendar."""
    possible = trips.drop("day").filter(~nw.any_horizontal(*impossible().values(), ignore_nulls=False).fill_null(True))
    return on_calendar(
        possible.with_columns(minutes=_duration_hours() * 60, speed=nw.col("distance_km") / _duration_hours()),
        "pickup_at",
        calendar,
    )


def trip_cells_hourly(trips: Frame) -> Frame:
    """Computes the pickups of each cell and hour, and the speed of the trips that began there."""
    hours = trips.with_columns(hour=nw.col("pickup_at").dt.truncate("1h"))
    return (
        hours.with_columns(cell=nw.col("pickup_cell"))
        .group_by(*HOUR, "cell")
        .agg(trips=nw.len(), distance_mean=mean("distance_km"), **spread("speed"))
        .with_columns(congestion())
    )


def trip_flows_daily(trips: Frame) -> Frame:
    """Counts the trips of each day from one cell to another, with their mean duration, distance and speed."""
    flows = trips.group_by("day", "pickup_cell", "dropoff_cell").agg(
        trips=nw.len(), minutes_mean=mean("minutes"), distance_mean=mean("distance_km"), speed_mean=mean("speed")
    )
    return flows.rename({"pickup_cell": "origin", "dropoff_cell": "destination"})


def trip_hotspots_daily(trips: Frame) -> Frame:
    """Ranks the cells in which most trips of a day begin and end. Rank 1 is the busiest cell."""
    ends = [
        trips.select("day", cell=nw.col(f"{end}_cell"), pickups=nw.lit(pickups), dropoffs=nw.lit(1 - pickups))
        for end, pickups in (("pickup", 1), ("dropoff", 0))
    ]
    totals = (
        nw.concat(ends)
        .group_by("day", "cell")
        .agg(pickups=nw.col("pickups").sum(), dropoffs=nw.col("dropoffs").sum())
        .with_columns(total=nw.col("pickups") + nw.col("dropoffs"))
    )
    ranked = totals.with_columns(rank=nw.col("total").rank("min", descending=True).over("day"))
    return ranked.filter(nw.col("rank") <= HOTSPOTS).drop("total")


def impossible() -> dict[str, nw.Expr]:
    """Returns the reasons why a trip cannot have happened, each with its condition.

    A condition is null if a value that it needs is missing.
    """
    begin, end = nw.col("_pickup_at_seconds"), nw.col("_dropoff_at_seconds")
    return {
        "incomplete": nw.any_horizontal(
            *(nw.col(name).is_null() for name in ("pickup_at", "dropoff_at", "distance_km", *_ENDS)), ignore_nulls=False
        ),
        "outside the area": ~_is_inside("pickup") | ~_is_inside("dropoff"),
        "ends before it begins": end < begin,
        "takes no time": end == begin,
        f"longer than {LONGEST_HOURS} hours": _duration_hours() > LONGEST_HOURS,
        "goes nowhere": (straight_km() < 0.05) & (nw.col("distance_km") < 0.05),
        "negative distance": nw.col("distance_km") < 0,
        "too fast": nw.max_horizontal(straight_km(), nw.col("distance_km")) > FASTEST_KMH * _duration_hours(),
    }


def straight_km() -> nw.Expr:
    """Returns the distance between a trip's ends on a plane (km). Across a city, the error is a thousandth."""
    north = (nw.col("dropoff_latitude") - nw.col("pickup_latitude")) * _KM_PER_DEGREE
    east = (nw.col("dropoff_longitude") - nw.col("pickup_longitude")) * _KM_PER_DEGREE * 0.758  # cos 40.7°
    return (north**2 + east**2) ** 0.5


def congestion(speed: str = "speed_mean") -> nw.Expr:
    """Returns the congestion (low, medium or high) of a mean speed in km/h, as the column `congestion`."""
    level: nw.Expr = levels(nw.col(speed), nw)
    return level.alias("congestion")


def levels(speed: Any, engine: Any, slow: float = SLOW_KMH, free: float = FREE_KMH) -> Any:
    """Returns the expression of the congestion level of each speed (km/h), null if the speed is null.

    It is high below `slow`, and low from `free` on: by default the limits of a street. `engine` is the module narwhals
    or polars, whose expression it is.
    """
    when, level = engine.when, engine.lit
    low = when(speed >= free).then(level("low"))
    return when(speed < slow).then(level("high")).otherwise(when(speed < free).then(level("medium")).otherwise(low))


def mean(name: str) -> nw.Expr:
    """Returns a column's mean, rounded so that it does not depend on the order in which an engine adds."""
    return nw.col(name).mean().round(6)


def spread(name: str) -> dict[str, nw.Expr]:
    """Returns the aggregates of a column's mean and standard deviation."""
    return {f"{name}_mean": mean(name), f"{name}_std": nw.col(name).std().round(6)}


def _vehicle_volume() -> dict[str, nw.Expr]:
    return {"positions": nw.len(), "speeds": nw.col("speed").count(), "vehicles": nw.col("vehicle_id").n_unique()}


def _duration_hours() -> nw.Expr:
    return (nw.col("_dropoff_at_seconds") - nw.col("_pickup_at_seconds")) / 3600


def _is_inside(end: str) -> nw.Expr:
    return nw.col(f"{end}_latitude").is_between(SOUTH, NORTH) & nw.col(f"{end}_longitude").is_between(WEST, EAST)


def traffic_now(rows: Rows) -> Rows:
    """Computes the trend of a cell's speed, compared with its own past and with the cells around it."""
    return rows.with_columns(
        speed_trend=nw.col("speed_mean") - nw.col("speed_recent"),
        speed_against_neighbours=nw.col("speed_mean") - nw.col("speed_neighbours"),
        minutes_ahead_in_rush=nw.when(nw.col("rush_hour")).then(nw.col("minutes_ahead")).otherwise(nw.lit(0.0)),
    )


def vehicles_hourly(positions: Frame) -> Frame:
    """Computes the positions, cells and speed of each vehicle in each hour."""
    hours = positions.with_columns(hour=nw.col("timestamp").dt.truncate("1h"))
    return (
        hours.group_by("day", "hour", "vehicle_id")
        .agg(positions=nw.len(), cells=nw.col("cell").n_unique(), **spread("speed"))
        .with_columns(as_of=nw.col("hour").dt.offset_by("1h"))
    )
