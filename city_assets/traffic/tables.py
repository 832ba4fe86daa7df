"""The derived tables of the vehicles' positions, with the meaning and the sources of their columns.

The tables of trips are those of trip_tables.py.
"""

from city.features.on_demand import OnDemand
from city.tables import Column, Source, Table
from city.tables.silver import silver_table
from city_assets.traffic import transforms
from city_assets.traffic.cell_tables import CELL_TABLES
from city_assets.traffic.columns import DAY, HOUR, count, feature, speed
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.trip_tables import TRIP_TABLES

_VEHICLES = (
    count("positions", "positions reported"),
    count("speeds", "positions with a speed", "positions.speed", nullable=True),
    count("vehicles", "different vehicles", "positions.vehicle_id"),
    *speed("positions.speed", nullable=True),
)
_POSITIONS = {"positions": Source(table="silver/vehicle_positions")}

CELLS_HOURLY = Table(
    name="traffic_cells_hourly",
    layer="gold",
    description="Traffic in each H3 cell by the hour.",
    key=("hour", "cell"),
    time="hour",
    columns=(
        *HOUR,
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
    columns=(DAY, Column(name="cell", kind="string", description="H3 cell", origins=("positions.cell",)), *_VEHICLES),
    sources=_POSITIONS,
    transform=transforms.cells_daily,
)


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
        count("positions", "positions reported"),
        count("cells", "different H3 cells", "positions.cell"),
        feature("speed_mean", "mean speed", "positions.speed"),
        feature("speed_std", "spread of speed", "positions.speed"),
        DAY,
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
    *TRIP_TABLES,
)

ON_DEMAND = (
    OnDemand(
        name="traffic_now",
        description="Where a cell's speed is going, for a prediction so many minutes ahead.",
        needs=tuple(
            f"traffic_features:{name}" for name in ("speed_mean", "speed_recent", "speed_neighbours", "rush_hour")
        ),
        request=(feature("minutes_ahead", "how far ahead the prediction is", unit="min", nullable=False),),
        columns=(
            feature("speed_trend", "speed less the mean of the last windows"),
            feature("speed_against_neighbours", "speed less that of the cells around it"),
            feature("minutes_ahead_in_rush", "how far ahead, in the rush hour; else 0", unit="min", nullable=False),
        ),
        compute=transforms.traffic_now,
    ),
)
