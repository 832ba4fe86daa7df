"""Vehicles of other systems: how their messages become positions of the contract `vehicle_positions`."""

from city.sources.model import At, Source
from city_assets.traffic.contract import VEHICLE_POSITIONS

GTFS_VEHICLES = Source(
    name="gtfs_vehicles",
    contract=VEHICLE_POSITIONS,
    description="Vehicle positions of public transport in GTFS-realtime: by URL, or a feed as a message of the topic. "
    "Entities without a position (trip updates, alerts) are left out. A vehicle may have no speed, and "
    "has the feed's time where it has none of its own.",
    documentation="https://gtfs.org/documentation/realtime/reference/#message-vehicleposition",
    sample='{"header": {"gtfs_realtime_version": "1.0", "incrementality": "FULL_DATASET", "timestamp": "1284457468"}, '
    '"entity": [{"id": "vehicle_1", "vehicle": {"trip": {"trip_id": "trip_1"}, "vehicle": {"id": "3106", '
    '"label": "Bus 3106"}, "position": {"latitude": 40.7585, "longitude": -73.9857, "bearing": 90.0, "speed": 8.25}, '
    '"timestamp": "1284457460"}}]}',
    kafka="gtfs-vehicle-positions",
    format="gtfs_realtime",
    items="entity",
    fields={
        "vehicle_id": At("vehicle.vehicle.id|id"),
        "timestamp": At("vehicle.timestamp|^.header.timestamp", form="epoch_s"),
        "latitude": At("vehicle.position.latitude", skips=True),
        "longitude": At("vehicle.position.longitude"),
        "speed": At("vehicle.position.speed", unit="m/s"),
        "trip_id": At("vehicle.trip.trip_id"),
    },
)

SOURCES = (GTFS_VEHICLES,)
