"""Feeds of vehicle positions in GTFS-realtime, as positions of the contract."""

import json
from datetime import UTC, datetime
from typing import Any

from city.sources.mapping import map_messages
from city_assets.traffic.sources import GTFS_VEHICLES
from tests.city.sources.feeds import json_to_feed

NOW = datetime(2026, 11, 27, 15, tzinfo=UTC)


def feed(*entities: dict[str, Any]) -> bytes:
    header = {"gtfs_realtime_version": "2.0", "timestamp": "1284457468"}
    listed = [{"id": f"e{number}", **entity} for number, entity in enumerate(entities)]
    return json_to_feed(json.dumps({"header": header, "entity": listed}))


def vehicle(**changes: Any) -> dict[str, Any]:
    position = {"latitude": 40.7585, "longitude": -73.9857, "speed": 10.0} | changes.pop("position", {})
    return {"vehicle": {"position": position, "vehicle": {"id": "3106"}, "timestamp": "1284457460"} | changes}


def test_the_published_feed_becomes_positions() -> None:
    mapped = map_messages(GTFS_VEHICLES, [json_to_feed(GTFS_VEHICLES.sample)])
    assert mapped.rejected == {}
    (row,) = mapped.events.iter_rows(named=True)
    assert (row["vehicle_id"], row["trip_id"]) == ("3106", "trip_1")
    assert row["timestamp"] == datetime(2010, 9, 14, 9, 44, 20, tzinfo=UTC)
    assert round(row["speed"], 3) == 29.7
    assert round(row["latitude"], 4) == 40.7585


def test_entities_without_a_position_are_no_events_and_a_vehicle_may_be_named_by_its_entity() -> None:
    alert = {"alert": {"header_text": {"translation": [{"text": "late"}]}}}
    nameless = vehicle(vehicle={}, timestamp="0")
    del nameless["vehicle"]["timestamp"]
    mapped = map_messages(GTFS_VEHICLES, [feed(alert, vehicle(), nameless), feed(alert)])
    assert mapped.rejected == {}
    assert mapped.events["vehicle_id"].to_list() == ["3106", "e2"]
    assert mapped.events["timestamp"][1] == datetime(2010, 9, 14, 9, 44, 28, tzinfo=UTC), "that of the feed"


def test_a_number_that_is_none_is_one_vehicles_and_a_feed_without_entities_is_no_fault() -> None:
    broken = vehicle(vehicle={"id": "1"}, position={"speed": "NaN"})
    mapped = map_messages(GTFS_VEHICLES, [feed(broken, vehicle()), feed()])
    assert mapped.events["vehicle_id"].to_list() == ["3106"]
    assert mapped.rejected == {0: ["item 0: speed: nothing at vehicle.position.speed"]}


def test_bytes_that_are_no_feed_are_rejected() -> None:
    mapped = map_messages(GTFS_VEHICLES, [b"<html>sign in</html>", feed(vehicle()), b""])
    assert mapped.events.height == 1
    assert "that are no FeedMessage of GTFS-realtime; it looks like a web page" in mapped.rejected[0][0]
    assert 2 in mapped.rejected


def test_a_vehicle_without_a_speed_is_rejected_and_the_others_are_not() -> None:
    slow = vehicle(vehicle={"id": "1"})
    del slow["vehicle"]["position"]["speed"]
    mapped = map_messages(GTFS_VEHICLES, [feed(slow, vehicle())])
    assert mapped.events["vehicle_id"].to_list() == ["3106"]
    assert mapped.rejected == {0: ["item 0: speed: nothing at vehicle.position.speed"]}
