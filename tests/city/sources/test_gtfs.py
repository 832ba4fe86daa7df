"""Feeds that are too large to read, and what is read of the others."""

import json
import time

import pytest

from city.sources.gtfs import MAX_ENTITIES, feed_to_json
from city.sources.model import FormatError
from tests.city.sources.feeds import json_to_feed

HEAD = json_to_feed('{"header": {"gtfs_realtime_version": "2.0"}}')
EMPTY_ENTITY = b"\x12\x02\x0a\x00"
"""Field 2 (entity) of two bytes: field 1 (id), empty."""


def test_a_feed_of_too_many_entities_is_refused_before_it_is_converted() -> None:
    began = time.process_time()
    with pytest.raises(FormatError, match=r"1,000,000 entities; expected at most 50,000"):
        feed_to_json(HEAD + EMPTY_ENTITY * 1_000_000, {"id"})
    assert time.process_time() - began < 2
    assert feed_to_json(HEAD + EMPTY_ENTITY * MAX_ENTITIES, {"id"}).count(b"{") == MAX_ENTITIES + 2


def test_only_the_parts_of_entities_that_a_source_reads_are_converted() -> None:
    stops = [{"stop_id": "s"}] * 100
    trip = {"id": "a", "trip_update": {"trip": {"trip_id": "t"}, "stop_time_update": stops}}
    vehicle = {"id": "b", "vehicle": {"vehicle": {"id": "v"}}}
    content = {"header": {"gtfs_realtime_version": "2.0"}, "entity": [trip, vehicle]}
    converted = json.loads(feed_to_json(json_to_feed(json.dumps(content)), {"id", "vehicle"}))
    assert converted["entity"] == [{"id": "a"}, vehicle]
