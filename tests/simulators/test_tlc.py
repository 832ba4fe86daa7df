import http.server
import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import requests

from city.settings import Settings
from city.streaming.topics import ensure_topics
from city_assets.traffic.contract import VEHICLE_POSITIONS
from simulators.tlc import download, events, load, moments, month_file, replay
from simulators.tlc_console import describe, fetch, play
from tests.city_assets.traffic.test_trips import trip
from tests.events import NOW
from tests.live import consume


def two_trips() -> pl.DataFrame:
    later = timedelta(days=2)
    second = trip(pickup_at=datetime(2015, 1, 1, 12) + later, dropoff_at=datetime(2015, 1, 1, 12, 10) + later)
    return pl.concat([trip(), second]).with_row_index("trip")


def test_the_clock_runs_faster_and_skips_hours_without_a_trip() -> None:
    elapsed = 0.0
    now = moments(two_trips(), speed=60, elapsed=lambda: elapsed)
    seen = []
    for second in range(25):
        elapsed = float(second)
        seen.append(now())
    assert seen[5] == datetime(2015, 1, 1, 12, 5)
    assert seen[10] == datetime(2015, 1, 3, 12, 0)
    assert seen[19] == datetime(2015, 1, 3, 12, 9)
    assert seen[20] is None


def test_positions_are_dated_now_and_keyed_by_vehicle() -> None:
    ((key, message),) = events(two_trips(), datetime(2015, 1, 1, 12, 5), NOW)
    assert key == "taxi_00000000"
    assert json.loads(message) == {
        "vehicle_id": "taxi_00000000",
        "timestamp": "2026-05-01T12:00:30.000Z",
        "latitude": 40.71,
        "longitude": -73.99,
        "speed": 24.0,
        "trip_id": "trip_00000000",
    }


def test_what_is_left_out_is_said(data: Path) -> None:
    loaded = load([data / "tlc" / "yellow_tripdata_2019-01.csv", data / "tlc" / "yellow_tripdata_2015-01.csv"])
    said = "\n".join(describe(loaded))
    assert "trips read" in said
    assert "rejected: incomplete" in said
    assert f"{loaded.by_zone} have zones instead of coordinates" in said


def test_real_trips_are_replayed_into_kafka(stack: Settings, data: Path) -> None:
    loaded = load([data / "tlc" / "trips_with_coordinates.parquet"])
    stop, seen = threading.Event(), list[int]()
    ensure_topics(stack.kafka, [VEHICLE_POSITIONS])

    def taxis() -> int:
        events = consume(stack, VEHICLE_POSITIONS.topic)
        return sum(event["vehicle_id"].startswith("taxi_") for event in events if "vehicle_id" in event)

    def tell(moment: datetime, sent: int) -> None:
        seen.append(sent)
        if len(seen) == 4:
            stop.set()

    before = taxis()  # of other tests
    sent = replay(loaded, stack, 60, stop, tell)
    assert sent == seen[-1] > 100
    assert taxis() - before >= sent


def test_a_replay_without_a_trip_says_so(config: Settings, tmp_path: Path) -> None:
    file = tmp_path / "trips.parquet"
    names = {"pickup_at": "pickup_datetime", "dropoff_at": "dropoff_datetime", "distance_km": "trip_distance"}
    trip(pickup_latitude=0.0).rename(names).write_parquet(file)
    with pytest.raises(ValueError, match="no trip is left"):
        play([file], config, 1, None)


class Server(http.server.BaseHTTPRequestHandler):
    """A file server that honours ranges, and cuts the first answer short."""

    content = bytes(range(256)) * 20_000
    cut = 0
    ranges: list[str | None]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        type(self).ranges.append(asked)
        if "2019-13" in self.path or not self.path.endswith("2015-01.parquet"):
            self.send_error(404)
            return
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if first >= len(self.content):
            self.send_error(416)
            return
        body = self.content[first:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: type(self).cut] if type(self).cut else body)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def site(config: Settings) -> Iterator[Settings]:
    Server.ranges, Server.cut = [], 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield config.model_copy(update={"tlc_url": f"http://127.0.0.1:{server.server_port}/trip-data"})
    server.shutdown()


def test_a_month_is_fetched_once(site: Settings, tmp_path: Path) -> None:
    fetch(["2015-01", "2015-01"], site, tmp_path / "tlc")
    file = tmp_path / "tlc" / "yellow_tripdata_2015-01.parquet"
    assert file.read_bytes() == Server.content
    assert Server.ranges == [None]


def test_an_interrupted_download_goes_on_where_it_stopped(site: Settings, tmp_path: Path) -> None:
    Server.cut = 2_000_000
    seen: list[tuple[int, int]] = []
    with pytest.raises((RuntimeError, requests.RequestException)):
        download(site, "2015-01", tmp_path, lambda done, total: seen.append((done, total)))
    assert not (tmp_path / "yellow_tripdata_2015-01.parquet").exists()
    Server.cut = 0
    file = download(site, "2015-01", tmp_path, lambda done, total: seen.append((done, total)))
    assert file.read_bytes() == Server.content
    assert Server.ranges[1] is not None
    assert Server.ranges[1] != "bytes=0-"
    assert seen[-1] == (len(Server.content), len(Server.content))


def test_a_file_that_became_shorter_is_begun_anew(site: Settings, tmp_path: Path) -> None:
    (tmp_path / "yellow_tripdata_2015-01.parquet.part").write_bytes(b"x" * (len(Server.content) + 5))
    with pytest.raises(RuntimeError, match="changed on the server"):
        download(site, "2015-01", tmp_path, lambda done, total: None)
    assert download(site, "2015-01", tmp_path, lambda done, total: None).read_bytes() == Server.content


def test_a_month_that_is_not_there_is_an_error(site: Settings, tmp_path: Path) -> None:
    with pytest.raises(requests.HTTPError, match="404"):
        download(site, "2016-01", tmp_path, lambda done, total: None)


@pytest.mark.parametrize("month", ["2015", "2015-13", "2008-12", "../etc"])
def test_what_is_no_month_is_refused(month: str) -> None:
    with pytest.raises(ValueError, match=month.replace(".", r"\.")):
        month_file(month)
