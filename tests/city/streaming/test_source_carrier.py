"""Messages that sources map, from Kafka topics and by URL."""

import contextlib
import http.server
import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from confluent_kafka import Producer

from city.settings import Settings
from city.sources.model import Arrived, Source, SourceError
from city.sources.registry import feeds_of
from city.stack.worker import Worker
from city.streaming.feeds import Feeds
from city.streaming.heartbeat import Heartbeat
from city.streaming.source_carrier import Carrier, SourceTopics
from city.streaming.strays import Stray, quarantine_strays, strays_path
from city.streaming.topics import ensure_topics
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.sources import GTFS_VEHICLES
from tests.city.sources.feeds import json_to_feed
from tests.live import consume, until

HEADER = {"gtfs_realtime_version": "2.0", "timestamp": "1284457468"}


def make_source(**changes: Any) -> Source:
    """A source whose topics nobody else has."""
    name = uuid.uuid4().hex
    contract = replace(VEHICLE_POSITIONS, name=f"v{name}", topic=f"positions-{name}", windows=(), partitions=1)
    return replace(GTFS_VEHICLES, name=f"gtfs_{name}", contract=contract, kafka=f"feeds-{name}", **changes)


def vehicle(number: int, second: int = 0) -> dict[str, Any]:
    position = {"latitude": 40.7, "longitude": -74.0, "speed": 10.0}
    moment = {"vehicle": {"id": f"v{number}"}, "timestamp": str(1284457460 + second)}
    return {"id": f"e{number}", "vehicle": {"position": position} | moment}


def feed(*entities: dict[str, Any]) -> bytes:
    return json_to_feed(json.dumps({"header": HEADER, "entity": list(entities)}))


def vehicles(stack: Settings, source: Source) -> list[str]:
    """The vehicles of the events, sorted: the messages of a topic with several partitions have no order."""
    return sorted(event["vehicle_id"] for event in consume(stack, source.contract.topic))


@contextlib.contextmanager
def working(body: Any) -> Iterator[Worker]:
    worker = Worker(f"w{uuid.uuid4().hex}", body).start()
    try:
        yield worker
    finally:
        worker.stop(20)


def test_the_messages_of_a_topic_become_events_and_a_second_bridge_goes_on(
    stack: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source()
    ensure_topics(stack.kafka, [source.contract])
    heartbeat = Heartbeat(stack, "bridge-of-test")
    producer = Producer(stack.kafka.options({"allow.auto.create.topics": False}))
    topics = SourceTopics([source, replace(make_source(), kafka=None)], stack, heartbeat)
    assert topics.topics == [source.kafka]
    monkeypatch.setattr("city.streaming.source_carrier._LOOK_SECONDS", 1.0)
    with working(topics.run) as worker:
        until(lambda: worker.items == 0 and worker.last_progress)
        ensure_topics(stack.kafka, [], [str(source.kafka)])  # later than the bridge
        for message in (feed(vehicle(1), vehicle(2)), b"no feed", feed(vehicle(3))):
            producer.produce(str(source.kafka), message)
        assert producer.flush(20) == 0
        until(lambda: worker.items == 3, 40)
        assert worker.last_error is None
    assert vehicles(stack, source) == ["v1", "v2", "v3"]
    strays = pl.read_delta(str(strays_path(stack.lake)))
    assert strays.select("topic", "raw").rows() == [(source.kafka, b"no feed")]
    assert "no FeedMessage" in strays["reasons"][0][0]
    producer.produce(str(source.kafka), feed(vehicle(4)))
    producer.flush(20)
    with working(SourceTopics([source], stack, heartbeat).run) as worker:
        until(lambda: worker.items == 1, 40)
    assert vehicles(stack, source) == ["v1", "v2", "v3", "v4"]


def test_a_full_disk_sends_no_event_again_and_an_absent_kafka_quarantines_nothing_twice(
    stack: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, heartbeat = make_source(), Heartbeat(stack, "bridge-of-test")
    carrier = Carrier(stack)
    carrier.open([source])
    payloads = [feed(vehicle(1)), b"no feed"]

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("city.streaming.source_carrier.quarantine_strays", fail)
        with pytest.raises(OSError, match="no space left"):
            carrier.carry([source], payloads, "a feed", heartbeat)
    assert vehicles(stack, source) == []
    with monkeypatch.context() as kafka:
        kafka.setattr("city.streaming.source_carrier._DELIVERY_SECONDS", 0.0)
        kafka.setattr("city.streaming.source_carrier.produce", lambda *_: False)
        for _ in range(2):
            with pytest.raises(ConnectionError, match="does not take what a feed becomes"):
                carrier.carry([source], payloads, "a feed", heartbeat)
    carrier.open([source])
    carrier.carry([source], payloads, "a feed", heartbeat)
    carrier.close()
    assert vehicles(stack, source) == ["v1"]
    assert quarantined(stack, "a feed")["raw"].to_list() == [b"no feed"]


def test_several_threads_give_their_rejects_different_offsets(config: Settings) -> None:
    def write(number: int) -> None:
        quarantine_strays(config.lake, [Stray(f"t{number}", b"x", ("wrong",), 0.0)] * 50)

    write(0)
    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pl.read_delta(str(strays_path(config.lake)))["offset"].n_unique() == 200


def quarantined(config: Settings, topic: str) -> pl.DataFrame:
    return pl.read_delta(str(strays_path(config.lake))).filter(pl.col("topic") == topic)


class Origin:
    """A web server with a feed."""

    def __init__(self) -> None:
        self.status, self.content, self.requests = 200, b"", [dict[str, str]()]
        self.pause, self.has_etag = 0.0, True

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        origin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                origin.requests.append(dict(self.headers))
                same = self.headers.get("If-None-Match") == str(hash(origin.content))
                self.send_response(304 if same and origin.status == 200 else origin.status)
                self.send_header("location", "http://another.example.org/feed")
                if origin.has_etag:
                    self.send_header("etag", str(hash(origin.content)))
                self.end_headers()
                if origin.pause:
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(origin.pause)
                self.wfile.write(b"" if same else origin.content)

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/feed?key=open-sesame"
        finally:
            server.shutdown()
            server.server_close()


def test_a_feed_is_fetched_again_and_again_and_gives_only_what_is_new(stack: Settings) -> None:
    source, origin = make_source(), Origin()
    ensure_topics(stack.kafka, [source.contract])
    origin.content = feed(vehicle(1), vehicle(2))
    with origin.serving() as url:
        config = Settings(
            **stack.model_dump(exclude={"feeds", "feed_seconds", "feed_headers"}),
            feeds={source.name: url},
            feed_headers={source.name: "X-API-Key: open-sesame"},
            feed_seconds=1.0,
        )
        feeds = Feeds([source], config, Heartbeat(stack, "bridge-of-test"))
        with working(feeds.run) as worker:
            until(lambda: len(origin.requests) > 3)
            assert vehicles(stack, source) == ["v1", "v2"]
            origin.content = feed(vehicle(1, 30), vehicle(2))
            until(lambda: vehicles(stack, source) == ["v1", "v1", "v2"])
            origin.status = 503
            until(lambda: worker.last_error)
            assert worker.last_error == f"feed {source.name}: 127.0.0.1 answers HTTP 503"
            origin.status, origin.content = 200, feed(vehicle(3))
            until(lambda: vehicles(stack, source) == ["v1", "v1", "v2", "v3"])
            until(lambda: worker.last_error is None)
    assert origin.requests[-1]["X-API-Key"] == "open-sesame"
    assert "open-sesame" not in str(config)


def test_a_feed_that_is_no_longer_right_is_told_and_its_rejects_are_quarantined_once(stack: Settings) -> None:
    source, origin = make_source(), Origin()
    lost = vehicle(9)
    lost["vehicle"]["position"]["longitude"] = "NaN"
    origin.content = feed(vehicle(1), lost)
    with origin.serving() as url:
        config = Settings(
            **stack.model_dump(exclude={"feeds", "feed_seconds", "feed_headers"}),
            feeds={source.name: url},
            feed_seconds=1.0,
        )
        with working(Feeds([source], config, Heartbeat(stack, "bridge-of-test")).run) as worker:
            until(lambda: vehicles(stack, source) == ["v1"])
            origin.content = feed(lost, vehicle(2))  # the same fault, at another place
            until(lambda: vehicles(stack, source) == ["v1", "v2"])
            origin.content = b"<html>sign in</html>"
            until(lambda: "are no FeedMessage of GTFS-realtime; it looks like a web page" in str(worker.last_error))
            assert "check its URL" in str(worker.last_error)
            origin.content = feed(vehicle(2), lost)
            until(lambda: worker.last_error is None)
            origin.status = 302
            until(lambda: "redirects: give the address" in str(worker.last_error))
            origin.status, origin.content = 200, b"x" * 21_000_000
            until(lambda: "sends more than 20,971,520 bytes" in str(worker.last_error))
    strays = pl.read_delta(str(strays_path(stack.lake))).filter(pl.col("topic") == f"feed {source.name}")
    reasons = strays["reasons"].explode().to_list()
    assert sum("longitude: nothing at vehicle.position.longitude" in reason for reason in reasons) <= 2
    assert sum("no FeedMessage" in reason for reason in reasons) == 1


def test_an_equal_answer_is_no_news_also_where_events_have_the_time_of_their_arrival(
    stack: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, origin = make_source(fields=GTFS_VEHICLES.fields | {"timestamp": Arrived()}), Origin()
    origin.has_etag, origin.content = False, feed(vehicle(1))
    with origin.serving() as url:
        config = Settings(
            **stack.model_dump(exclude={"feeds", "feed_seconds", "feed_headers"}),
            feeds={source.name: url},
            feed_seconds=1.0,
        )
        monkeypatch.setattr("city.streaming.feeds._ANSWER_SECONDS", 1.0)
        with working(Feeds([source], config, Heartbeat(stack, "bridge-of-test")).run) as worker:
            until(lambda: len(origin.requests) > 3)
            assert vehicles(stack, source) == ["v1"]
            origin.content = feed(vehicle(2))
            until(lambda: vehicles(stack, source) == ["v1", "v2"])
            origin.pause, origin.content = 1.5, b"x"
            until(lambda: worker.last_error == f"feed {source.name}: 127.0.0.1 does not answer (Timeout)")


def test_a_feed_of_no_source_is_named(config: Settings) -> None:
    wrong = Settings(**config.model_dump(exclude={"feeds"}), feeds={"buses": "http://h/feed"})
    with pytest.raises(SourceError, match="CITY_FEEDS names buses; known sources: gtfs_vehicles"):
        feeds_of([GTFS_VEHICLES], wrong)
    keyless = Settings(**config.model_dump(exclude={"feed_headers"}), feed_headers={"gtfs_vehicles": "X-Key: k"})
    with pytest.raises(SourceError, match="CITY_FEED_HEADERS names gtfs_vehicles, without a URL in CITY_FEEDS"):
        feeds_of([GTFS_VEHICLES], keyless)
