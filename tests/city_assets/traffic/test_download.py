import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from city.settings import Settings, settings
from city_assets.traffic.console import fetch
from city_assets.traffic.download import download, downloaded_zones, folder_of, month_file
from city_assets.traffic.trips import read_trips
from tests.city_assets.traffic.test_zones import archive, square
from tests.commands import city, fails


class Server(http.server.BaseHTTPRequestHandler):
    """A file server that honours ranges, and cuts the first answer short."""

    content = bytes(range(256)) * 20_000
    cut = 0
    ranges: list[str | None]

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        if self.path.endswith(".parquet"):
            type(self).ranges.append(span)
        if self.path == "/misc/taxi_zones.zip":
            body = archive((7, "Queens", "Astoria", [square(-73.92, 40.76, 0.01)]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        if "2019-13" in self.path or not self.path.endswith("2015-01.parquet"):
            self.send_error(404)
            return
        first = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        if first >= len(self.content):
            self.send_error(416)
            return
        body = self.content[first:]
        self.send_response(206 if span else 200)
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


def test_the_table_of_zones_comes_with_a_month_and_is_found(
    site: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert downloaded_zones(site) is None
    fetch(["2015-01"], site, folder_of(site))
    zones = downloaded_zones(site)
    assert zones is not None
    file = tmp_path / "trips.csv"
    file.write_text(
        "tpep_pickup_datetime,tpep_dropoff_datetime,trip_distance,PULocationID,DOLocationID\n"
        "2017-02-14 16:08:11,2017-02-14 16:20:02,1.5,7,7\n"
    )
    with pytest.raises(FileNotFoundError, match="fetch it with `city data tlc` and any month, or give one"):
        read_trips(file)
    assert read_trips(file, zones)["pickup_latitude"][0] == pytest.approx(40.76, abs=1e-4)


def test_ingest_and_replay_find_the_downloaded_zones(
    site: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CITY_TLC_URL", site.tlc_url)
    settings.cache_clear()
    file = tmp_path / "other" / "trips.csv"
    file.parent.mkdir()
    file.write_text(
        "tpep_pickup_datetime,tpep_dropoff_datetime,trip_distance,PULocationID,DOLocationID\n"
        "2017-02-14 16:08:11,2017-02-14 16:20:02,0,7,7\n"
    )
    for command in ("ingest", "replay"):
        assert "no table of zone centres" in fails(command, "tlc", str(file))
    assert "taxi_zone_centers.csv" in city("data", "tlc", "2015-01").replace("\n", "")
    assert "1 trips loaded" in city("ingest", "tlc", str(file))
    assert "no trip is left to replay" in fails("replay", "tlc", str(file)), "it goes nowhere, but it is read"


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
