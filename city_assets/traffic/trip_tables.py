"""The tables of taxi trips, with the meaning and the sources of their columns.

No stream fills them: `city ingest tlc` loads bronze, and `city build` or Dagster builds the others.
"""

from datetime import date

from city.contracts.model import Kind
from city.tables import Column, Source, Table, calendar
from city_assets.traffic import transforms, trip_features
from city_assets.traffic.columns import (
    DAY,
    HOLIDAY,
    HOUR,
    LOCAL_HOUR,
    RUSH_HOUR,
    WEEKDAY,
    congestion,
    count,
    feature,
    speed,
)

_FIRST_TRIPS = date(2009, 1, 1)
_SILVER_TRIPS = {"trips": Source(table="silver/trips")}


def _same(
    source: str, name: str, kind: Kind, description: str, unit: str | None = None, nullable: bool = False
) -> Column:
    return Column(
        name=name, kind=kind, description=description, unit=unit, nullable=nullable, origins=(f"{source}.{name}",)
    )


_TRIP = (
    _same("trips", "file", "string", "the file it came in"),
    _same("trips", "row", "integer", "its row there"),
    _same("trips", "pickup_at", "timestamp", "when it began"),
    _same("trips", "dropoff_at", "timestamp", "when it ended"),
    _same("trips", "pickup_cell", "string", "H3 cell, resolution 8"),
    _same("trips", "dropoff_cell", "string", "H3 cell, resolution 8"),
    _same("trips", "distance_km", "float", "distance driven", "km"),
    _same("trips", "by_zone", "boolean", "true where the ends are the centres of zones"),
)

BRONZE_TRIPS = Table(
    name="trips",
    layer="bronze",
    description="Taxi trips as the TLC published them, in one layout and uncleaned (`city ingest tlc`).",
    key=("file", "row"),
    time="pickup_at",
    first_day=_FIRST_TRIPS,
    columns=(
        DAY,
        Column(name="file", kind="string", description="the file it came in"),
        Column(name="row", kind="integer", description="its row there"),
        Column(name="pickup_at", kind="timestamp", nullable=True, description="when it began"),
        Column(name="dropoff_at", kind="timestamp", nullable=True, description="when it ended"),
        *(
            Column(
                name=f"{end}_{axis}", kind="float", unit="°", nullable=True, description=f"WGS 84 {axis} of its {end}"
            )
            for end in ("pickup", "dropoff")
            for axis in ("latitude", "longitude")
        ),
        Column(name="distance_km", kind="float", unit="km", nullable=True, description="distance driven"),
        Column(name="by_zone", kind="boolean", description="true where the ends are the centres of zones"),
        Column(name="pickup_cell", kind="string", nullable=True, description="H3 cell, resolution 8"),
        Column(name="dropoff_cell", kind="string", nullable=True, description="H3 cell, resolution 8"),
    ),
)

TRIPS = Table(
    name="trips",
    layer="silver",
    description="The taxi trips that can have happened.",
    key=("file", "row"),
    time="pickup_at",
    first_day=_FIRST_TRIPS,
    columns=(
        *_TRIP,
        Column(name="minutes", kind="float", unit="min", description="how long it took", origins=("trips.pickup_at",)),
        Column(name="speed", kind="float", unit="km/h", description="its mean speed", origins=("trips.distance_km",)),
        *calendar.COLUMNS,
    ),
    sources={"trips": Source(table="bronze/trips"), "calendar": Source(table="reference/calendar")},
    transform=transforms.trips,
)

TRIP_CELLS_HOURLY = Table(
    name="trip_cells_hourly",
    layer="gold",
    description="Taxi pickups in each H3 cell by the hour, and how fast those trips went.",
    key=("hour", "cell"),
    time="hour",
    first_day=_FIRST_TRIPS,
    columns=(
        *HOUR,
        Column(name="cell", kind="string", description="H3 cell", origins=("trips.pickup_cell",)),
        count("trips", "pickups"),
        Column(
            name="distance_mean", kind="float", unit="km", description="mean distance", origins=("trips.distance_km",)
        ),
        *speed("trips.speed"),
    ),
    sources=_SILVER_TRIPS,
    transform=transforms.trip_cells_hourly,
)

TRIP_FLOWS = Table(
    name="trip_flows_daily",
    layer="gold",
    description="Taxi trips of a day from one H3 cell to another.",
    key=("day", "origin", "destination"),
    first_day=_FIRST_TRIPS,
    columns=(
        DAY,
        Column(name="origin", kind="string", description="H3 cell", origins=("trips.pickup_cell",)),
        Column(name="destination", kind="string", description="H3 cell", origins=("trips.dropoff_cell",)),
        count("trips", "trips"),
        Column(name="minutes_mean", kind="float", unit="min", description="mean duration", origins=("trips.minutes",)),
        Column(
            name="distance_mean", kind="float", unit="km", description="mean distance", origins=("trips.distance_km",)
        ),
        Column(name="speed_mean", kind="float", unit="km/h", description="mean speed", origins=("trips.speed",)),
    ),
    sources=_SILVER_TRIPS,
    transform=transforms.trip_flows_daily,
)

HOTSPOTS = Table(
    name="trip_hotspots_daily",
    layer="gold",
    description=f"The {transforms.HOTSPOTS} H3 cells in which most taxi trips of a day begin and end.",
    key=("day", "cell"),
    first_day=_FIRST_TRIPS,
    columns=(
        DAY,
        Column(name="cell", kind="string", description="H3 cell", origins=("trips.pickup_cell", "trips.dropoff_cell")),
        count("pickups", "trips that began there", "trips.pickup_cell"),
        count("dropoffs", "trips that ended there", "trips.dropoff_cell"),
        count("rank", "1 for the busiest; equal for cells that are equally busy"),
    ),
    sources=_SILVER_TRIPS,
    transform=transforms.trip_hotspots_daily,
)


TRIP_CELLS_QUARTERLY = Table(
    name="trip_cells_quarterly",
    layer="gold",
    description="Taxi trips from or to each H3 cell by the quarter of an hour in which they end, and their speed.",
    key=("quarter", "cell"),
    time="quarter",
    first_day=_FIRST_TRIPS,
    columns=(
        DAY,
        Column(
            name="quarter", kind="timestamp", description="the quarter's beginning, UTC", origins=("trips.dropoff_at",)
        ),
        LOCAL_HOUR,
        WEEKDAY,
        RUSH_HOUR,
        Column(name="cell", kind="string", description="H3 cell", origins=("trips.pickup_cell", "trips.dropoff_cell")),
        count("trips", "trips from or to the cell that ended in the quarter"),
        *speed("trips.speed")[:2],
        feature(
            "level_speed",
            f"mean speed of at least {trip_features.LEAST_TRIPS} trips, which decides the congestion",
            "trips.speed",
        ),
        congestion("trips.speed", nullable=True),
    ),
    # A trip belongs to the day of its pickup, and may end on the next one.
    sources={"trips": Source(table="silver/trips", days_before=1), "calendar": Source(table="reference/calendar")},
    transform=trip_features.trip_cells_quarterly,
)

_LAGS = range(1, trip_features.LAGS + 1)
TRIP_FEATURES = Table(
    name="trip_features",
    layer="features",
    description="What is known of a cell's taxi trips when a quarter of an hour ends.",
    key=("cell", "as_of"),
    time="as_of",
    first_day=_FIRST_TRIPS,
    columns=(
        Column(name="cell", kind="string", description="H3 cell", origins=("quarters.cell",)),
        Column(name="as_of", kind="timestamp", description="the quarter's end", origins=("quarters.quarter",)),
        feature("latitude", "WGS 84 latitude of the cell's centre", "quarters.cell", unit="°", nullable=False),
        feature("longitude", "WGS 84 longitude of the cell's centre", "quarters.cell", unit="°", nullable=False),
        count("trips", "trips from or to the cell that ended in the quarter", "quarters.trips"),
        feature("speed_mean", "mean speed of these trips", "quarters.speed_mean", nullable=False),
        feature("speed_std", "spread of their speed", "quarters.speed_std"),
        feature("level_speed", f"mean speed of at least {trip_features.LEAST_TRIPS} trips", "quarters.level_speed"),
        *(feature(f"speed_lag_{n}", f"mean speed {n} quarters before", "quarters.speed_mean") for n in _LAGS),
        count("trips_recent", "trips of the quarter and those before it", "quarters.trips"),
        feature("speed_recent", "mean speed of these trips", "quarters.speed_mean", nullable=False),
        feature("speed_neighbours", "mean speed of the trips of the cells around it", "quarters.speed_mean"),
        feature("speed_day_before", "mean speed in that hour of the day before", "quarters.speed_mean"),
        feature("usual_speed", "mean speed in that hour of that weekday in the weeks before", "quarters.speed_mean"),
        feature("usual_trips", "trips a quarter in these hours", "quarters.trips", unit=None),
        LOCAL_HOUR,
        WEEKDAY,
        HOLIDAY,
        RUSH_HOUR,
        DAY,
    ),
    sources={
        "quarters": Source(table="gold/trip_cells_quarterly", days_before=7 * trip_features.WEEKS),
        "neighbours": Source(table="reference/neighbours", cell_source="quarters"),
        "centres": Source(table="reference/cell_centres", cell_source="quarters"),
        "calendar": Source(table="reference/calendar"),
    },
    transform=trip_features.trip_features,
)

TRIP_TABLES = (BRONZE_TRIPS, TRIPS, TRIP_CELLS_HOURLY, TRIP_FLOWS, HOTSPOTS, TRIP_CELLS_QUARTERLY, TRIP_FEATURES)
