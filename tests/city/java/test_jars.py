import hashlib
import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from city.java import jars
from city.java.jars import Jar, JarError
from city.settings import CHECKOUT, Settings

CONTENT = b"a jar"
JAR = Jar("kafka", "org.example:thing:1.0", hashlib.sha256(CONTENT).hexdigest())


class Mirror(http.server.BaseHTTPRequestHandler):
    """A Maven repository of one jar, which may be another than it should be."""

    content = CONTENT
    requested: list[str]
    together: threading.Barrier | None

    def do_GET(self) -> None:
        type(self).requested.append(self.path)
        if self.together is not None:
            with suppress(threading.BrokenBarrierError):
                self.together.wait(0.5)  # for a second download, which would disturb this one
        if not self.path.endswith("/org/example/thing/1.0/thing-1.0.jar"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def mirror(config: Settings, tmp_path: Path) -> Iterator[Settings]:
    Mirror.requested, Mirror.content, Mirror.together = [], CONTENT, None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield config.model_copy(update={"maven_url": f"http://127.0.0.1:{server.server_port}", "cache": tmp_path / "cache"})
    server.shutdown()


def test_every_jar_is_locked_with_its_hash_and_no_host() -> None:
    locked = jars.locked_jars()
    assert {jar.server for jar in locked} == {"kafka", "questdb", "spark"}
    assert all(len(jar.sha256) == 64 and jar.coordinate.count(":") == 2 for jar in locked)
    assert "http" not in jars.LOCK.read_text().replace("httpc", "")
    assert any(jar.coordinate == "org.questdb:questdb:9.3.4" for jar in jars.locked_jars("questdb"))


def test_a_jar_is_fetched_checked_and_never_fetched_again(mirror: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "locked_jars", lambda server=None: [JAR])
    seen: list[Jar] = []
    assert jars.missing(mirror, ["kafka"]) == [JAR]
    jars.fetch(mirror, [JAR], seen.append)
    assert seen == [JAR]
    assert JAR.path(jars.folder(mirror)).read_bytes() == CONTENT
    request_count = len(Mirror.requested)
    assert jars.missing(mirror, ["kafka"]) == []
    jars.fetch(mirror, jars.missing(mirror, ["kafka"]))
    assert len(Mirror.requested) == request_count
    assert jars.classpath(mirror, "kafka") == str(JAR.path(jars.folder(mirror)))


def test_processes_that_share_an_empty_cache_download_a_jar_once(mirror: Settings) -> None:
    Mirror.together = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:  # a lock of a file keeps threads apart as it does processes
        for done in [pool.submit(jars.fetch, mirror, [JAR]) for _ in range(2)]:
            done.result()
    assert JAR.path(jars.folder(mirror)).read_bytes() == CONTENT
    assert Mirror.requested.count("/org/example/thing/1.0/thing-1.0.jar") == 1


def test_a_jar_that_was_changed_on_disk_is_missed(mirror: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "locked_jars", lambda server=None: [JAR])
    jars.fetch(mirror, [JAR])
    assert jars.missing(mirror, ["kafka"]) == []
    JAR.path(jars.folder(mirror)).write_bytes(b"another jar")
    assert jars.missing(mirror, ["kafka"]) == [JAR]


def test_a_jar_of_another_hash_is_not_used(mirror: Settings) -> None:
    Mirror.content = b"not the jar"
    with pytest.raises(JarError, match=r"org.example:thing:1.0 has the hash .* and jars.lock says"):
        jars.fetch(mirror, [JAR])
    assert not JAR.path(jars.folder(mirror)).exists()


def test_without_a_network_the_error_says_what_to_do(mirror: Settings) -> None:
    away = mirror.model_copy(update={"maven_url": "http://127.0.0.1:1"})
    with pytest.raises(JarError, match=r"cannot fetch org.example:thing:1.0.*CITY_MAVEN_URL.*put the file at"):
        jars.fetch(away, [JAR])


def test_the_lock_is_in_the_package() -> None:
    assert jars.LOCK.is_file()
    assert jars.LOCK.is_relative_to(CHECKOUT / "city")
