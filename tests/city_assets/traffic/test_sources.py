"""Feeds of vehicle positions in GTFS-realtime, as positions of the contract."""

import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from city.contracts import validity
from city.sources.mapping import map_messages, to_json
from city.streaming.decode import parse
from city_assets.traffic.contract import VEHICLE_POSITIONS
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


def test_a_number_that_is_none_is_unknown_and_a_feed_without_entities_is_no_fault() -> None:
    broken = vehicle(vehicle={"id": "1"}, position={"longitude": "NaN"})
    mapped = map_messages(GTFS_VEHICLES, [feed(broken, vehicle(position={"speed": "NaN"})), feed()])
    assert mapped.events.select("vehicle_id", "speed").rows() == [("3106", None)]
    assert mapped.rejected == {0: ["item 0: longitude: nothing at vehicle.position.longitude"]}


def test_bytes_that_are_no_feed_are_rejected() -> None:
    mapped = map_messages(GTFS_VEHICLES, [b"<html>sign in</html>", feed(vehicle()), b""])
    assert mapped.events.height == 1
    assert "that are no FeedMessage of GTFS-realtime; it looks like a web page" in mapped.rejected[0][0]
    assert 2 in mapped.rejected


def test_a_vehicle_without_a_speed_and_a_bearing_is_a_valid_position() -> None:
    mute = vehicle(vehicle={"id": "1"})
    del mute["vehicle"]["position"]["speed"]
    mapped = map_messages(GTFS_VEHICLES, [feed(mute, vehicle())])
    assert mapped.rejected == {}
    assert mapped.events.select("vehicle_id", "speed").rows() == [("1", None), ("3106", 36.0)]
    valid, invalid = validity.split(VEHICLE_POSITIONS, mapped.events.with_columns(_arrived=pl.col("timestamp")))
    assert (valid.height, invalid.height) == (2, 0)
    messages = to_json(VEHICLE_POSITIONS, mapped.events.drop("_row"))
    rows, refused = parse(VEHICLE_POSITIONS, [*messages])
    assert (rows["speed"].to_list(), refused) == ([None, 36.0], {})


@pytest.mark.parametrize("timestamp", [None, "0"])
def test_a_vehicle_without_a_time_has_that_of_the_feed(timestamp: str | None) -> None:
    timeless = vehicle()
    del timeless["vehicle"]["timestamp"]
    timeless["vehicle"] |= {} if timestamp is None else {"timestamp": timestamp}
    mapped = map_messages(GTFS_VEHICLES, [feed(timeless)])
    assert mapped.events["timestamp"].to_list() == [datetime(2010, 9, 14, 9, 44, 28, tzinfo=UTC)]


@pytest.mark.parametrize("vehicle_id", ["MTA NYCT_4551", "1:0123"])
def test_the_ids_of_real_feeds_become_events(vehicle_id: str) -> None:
    mapped = map_messages(GTFS_VEHICLES, [feed(vehicle(vehicle={"id": vehicle_id}))])
    assert mapped.rejected == {}
    valid, invalid = validity.split(VEHICLE_POSITIONS, mapped.events.with_columns(_arrived=pl.col("timestamp")))
    assert (valid["vehicle_id"].to_list(), invalid.height) == ([vehicle_id], 0)
