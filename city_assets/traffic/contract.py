"""The contract of vehicles' positions and speeds, with the two-minute windows of each map cell."""

from datetime import timedelta

from city.contracts import IDENTIFIER, Contract, Count, Distinct, Field, H3Cell, Mean, Rule, Std, Window

CELL_WINDOW = Window(
    name="traffic_cells",
    every=timedelta(minutes=2),
    by="cell",
    aggregates=(
        Distinct("vehicle_count", "vehicle_id"),
        Count("positions"),
        Count("speeds", "speed"),
        Mean("speed_mean", "speed"),
        Std("speed_std", "speed"),
    ),
    topic="city.processed.traffic",
    description="Vehicles in a cell, and the speed (km/h) of those that report it.",
)

VEHICLE_POSITIONS = Contract(
    name="vehicle_positions",
    topic="vehicle_positions",
    version=3,
    description="Where a vehicle was and, where it is known, how fast it went.",
    key="vehicle_id",
    event_time="timestamp",
    fields=(
        Field(name="vehicle_id", kind="string", description="the vehicle", pattern=IDENTIFIER),
        Field(name="timestamp", kind="timestamp", description="when the position was taken"),
        Field(name="latitude", kind="float", unit="°", minimum=-90, maximum=90, description="WGS 84 latitude"),
        Field(name="longitude", kind="float", unit="°", minimum=-180, maximum=180, description="WGS 84 longitude"),
        Field(
            name="speed",
            kind="float",
            unit="km/h",
            nullable=True,
            minimum=0,
            maximum=200,
            description="speed over ground; null where the vehicle does not report it",
        ),
        Field(name="trip_id", kind="string", nullable=True, description="the trip it is on; null when it is free"),
    ),
    rules=(
        Rule(
            name="not_null_island",
            sql="latitude <> 0 OR longitude <> 0",
            description="a receiver without a fix reports 0°, 0°",
        ),
    ),
    # Resolution 8: some 0.74 km² a cell, about a Manhattan avenue block by ten streets.
    cells=(H3Cell(name="cell", resolution=8),),
    windows=(CELL_WINDOW,),
)

CONTRACTS = (VEHICLE_POSITIONS,)
