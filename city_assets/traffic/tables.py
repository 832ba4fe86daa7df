"""The derived tables of the traffic, with the meaning and the sources of their columns."""

from datetime import date

from city.contracts.model import Kind
from city.features.on_demand import OnDemand
from city.tables import Column, Source, Table, calendar
from city.tables.silver import silver_table
from city_assets.traffic import transforms
from city_assets.traffic.cell_tables import CELL_TABLES
from city_assets.traffic.contract import VEHICLE_POSITIONS

_DAY, _LOCAL_HOUR, _WEEKDAY, _, _RUSH_HOUR = calendar.COLUMNS
_HOUR = (
    _DAY,
    Column(name="hour", kind="timestamp", description="the hour's beginning, UTC"),
    _LOCAL_HOUR,
    _WEEKDAY,
    _RUSH_HOUR,
)
_FIRST_TRIPS = date(2009, 1, 1)


def _congestion(*sources: str) -> Column:
    description = f"high below {transforms.SLOW_KMH:g} km/h, medium below {transforms.FREE_KMH:g} km/h, else low"
    return Column(name="congestion", kind="string", description=description, origins=sources)


def _speed(source: str) -> tuple[Column, ...]:
    return (
        Column(name="speed_mean", kind="float", unit="km/h", description="mean speed", origins=(source,)),
        Column(
            name="speed_std", kind="float", unit="km/h", nullable=True, description="spread of speed", origins=(source,)
        ),
        _congestion(source),
    )


def _count(name: str, description: str, *sources: str) -> Column:
    return Column(name=name, kind="integer", description=description, origins=sources)


_VEHICLES = (
    _count("positions", "positions reported"),
    _count("vehicles", "different vehicles", "positions.vehicle_id"),
    *_speed("positions.speed"),
)
_POSITIONS = {"positions": Source(table="silver/vehicle_positions")}
_TRIPS = {"trips": Source(table="silver/trips")}

CELLS_HOURLY = Table(
    name="traffic_cells_hourly",
    layer="gold",
    description="Traffic in each H3 cell by the hour.",
    key=("hour", "cell"),
    time="hour",
    columns=(
        *_HOUR,
        Column(name="cell", kind="string", description="H3 cell", origins=("positions.cell",)),
        *_VEHICLES,
    ),
    sources=_POSITIONS,
    transform=transforms.cells_hourly,
)

CELLS_DAILY = Table(
    name="traffic_cells_daily",
    layer="gold",
    description="Traffic in each H3 cell by the day.",
    key=("day", "cell"),
    columns=(_DAY, Column(name="cell", kind="string", description="H3 cell", origins=("positions.cell",)), *_VEHICLES),
    sources=_POSITIONS,
    transform=transforms.cells_daily,
)


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
        _DAY,
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
        *_HOUR,
        Column(name="cell", kind="string", description="H3 cell", origins=("trips.pickup_cell",)),
        _count("trips", "pickups"),
        Column(
            name="distance_mean", kind="float", unit="km", description="mean distance", origins=("trips.distance_km",)
        ),
        *_speed("trips.speed"),
    ),
    sources=_TRIPS,
    transform=transforms.trip_cells_hourly,
)

TRIP_FLOWS = Table(
    name="trip_flows_daily",
    layer="gold",
    description="Taxi trips of a day from one H3 cell to another.",
    key=("day", "origin", "destination"),
    first_day=_FIRST_TRIPS,
    columns=(
        _DAY,
        Column(name="origin", kind="string", description="H3 cell", origins=("trips.pickup_cell",)),
        Column(name="destination", kind="string", description="H3 cell", origins=("trips.dropoff_cell",)),
        _count("trips", "trips"),
        Column(name="minutes_mean", kind="float", unit="min", description="mean duration", origins=("trips.minutes",)),
        Column(
            name="distance_mean", kind="float", unit="km", description="mean distance", origins=("trips.distance_km",)
        ),
        Column(name="speed_mean", kind="float", unit="km/h", description="mean speed", origins=("trips.speed",)),
    ),
    sources=_TRIPS,
    transform=transforms.trip_flows_daily,
)

HOTSPOTS = Table(
    name="trip_hotspots_daily",
    layer="gold",
    description=f"The {transforms.HOTSPOTS} H3 cells in which most taxi trips of a day begin and end.",
    key=("day", "cell"),
    first_day=_FIRST_TRIPS,
    columns=(
        _DAY,
        Column(name="cell", kind="string", description="H3 cell", origins=("trips.pickup_cell", "trips.dropoff_cell")),
        _count("pickups", "trips that began there", "trips.pickup_cell"),
        _count("dropoffs", "trips that ended there", "trips.dropoff_cell"),
        _count("rank", "1 for the busiest; equal for cells that are equally busy"),
    ),
    sources=_TRIPS,
    transform=transforms.trip_hotspots_daily,
)


def _feature(name: str, description: str, *sources: str, unit: str | None = "km/h", nullable: bool = True) -> Column:
    return Column(name=name, kind="float", unit=unit, nullable=nullable, description=description, origins=sources)


VEHICLE_FEATURES = Table(
    name="vehicle_features",
    layer="features",
    description="How far and how fast a vehicle was about in an hour.",
    key=("vehicle_id", "as_of"),
    time="as_of",
    columns=(
        Column(name="vehicle_id", kind="string", description="the vehicle", origins=("positions.vehicle_id",)),
        Column(name="as_of", kind="timestamp", description="the hour's end", origins=("positions.timestamp",)),
        Column(
            name="hour", kind="timestamp", description="the hour's beginning, UTC", origins=("positions.timestamp",)
        ),
        _count("positions", "positions reported"),
        _count("cells", "different H3 cells", "positions.cell"),
        _feature("speed_mean", "mean speed", "positions.speed"),
        _feature("speed_std", "spread of speed", "positions.speed"),
        _DAY,
    ),
    sources=_POSITIONS,
    transform=transforms.vehicles_hourly,
)

TABLES = (
    *CELL_TABLES,
    VEHICLE_FEATURES,
    silver_table(VEHICLE_POSITIONS),
    CELLS_HOURLY,
    CELLS_DAILY,
    BRONZE_TRIPS,
    TRIPS,
    TRIP_CELLS_HOURLY,
    TRIP_FLOWS,
    HOTSPOTS,
)

ON_DEMAND = (
    OnDemand(
        name="traffic_now",
        description="Where a cell's speed is going, for a prediction so many minutes ahead.",
        needs=tuple(
            f"traffic_features:{name}" for name in ("speed_mean", "speed_recent", "speed_neighbours", "rush_hour")
        ),
        request=(_feature("minutes_ahead", "how far ahead the prediction is", unit="min", nullable=False),),
        columns=(
            _feature("speed_trend", "speed less the mean of the last windows"),
            _feature("speed_against_neighbours", "speed less that of the cells around it"),
            _feature("minutes_ahead_in_rush", "how far ahead, in the rush hour; else 0", unit="min", nullable=False),
        ),
        compute=transforms.traffic_now,
    ),
)
