"""How the server is reached: by load balancers, behind a proxy, with keys that are wrong or are revoked meanwhile."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from pydantic import ValidationError
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from city.settings import Settings
from city.stack.embedded import settings_at
from city.web.guard import PROTOCOL
from city.web.keys import Keys
from tests.city.serving.served import serving
from tests.live import until

PUBLIC = "https://city.example.org"


def ask(config: Settings, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
    """A request with just these headers, Host included: status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", config.serve_port, timeout=10)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    if body is not None:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body.encode() if body is not None else None)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def without_host(config: Settings, path: str) -> int:
    """The status that a probe gets which speaks HTTP/1.0."""
    connection = http.client.HTTPConnection("127.0.0.1", config.serve_port, timeout=10)
    connection._http_vsn, connection._http_vsn_str = 10, "HTTP/1.0"  # type: ignore[attr-defined]
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    connection.endheaders()
    return connection.getresponse().status


def start(home: Path, **options: object) -> Settings:
    return settings_at(home, home, **options)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A server that wants no key."""
    config = start(tmp_path_factory.mktemp("home"))
    with serving(config, []):
        yield config


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A server on loopback that people reach through a proxy."""
    config = start(tmp_path_factory.mktemp("home"), public_url=PUBLIC, failed_keys_a_minute=12)
    with serving(config, []):
        yield config


def test_a_name_that_is_no_name_is_refused_before_it_is_looked_at(local: Settings) -> None:
    for name in ("Host", "Origin"):
        status, said = ask(local, "POST", "/predict", "{}", **{"Host": "localhost", name: "x" * 301})
        assert (status, "at most 300 characters" in said) == (431, True)


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/v2/health/live"])
def test_load_balancers_need_not_know_the_host(local: Settings, path: str) -> None:
    assert without_host(local, path) == 200
    assert ask(local, "GET", path, host="10.0.0.7:8000")[0] == 200
    assert ask(local, "GET", path, host="10.0.0.7:8000", origin="http://10.0.0.7:8000")[0] == 200
    if not path.startswith("/v2/"):
        assert ask(local, "HEAD", path, host="10.0.0.7:8000") == (200, "")


def test_all_else_needs_a_host_of_ours_and_the_refusal_names_the_setting(local: Settings) -> None:
    assert without_host(local, "/models") == 403
    for host in (
        "10.0.0.7:8000",
        "evil.example.org",
        "localhost@evil.example.org",
        "localhost/x",
        "127.evil.org",
        "[:",
    ):
        status, answer = ask(local, "GET", "/models", host=host)
        assert status == 403, host
        assert "CITY_PUBLIC_URL" in answer
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]", "[::1]:8000"):
        assert ask(local, "GET", "/models", host=host)[0] == 200, host


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:80", "http://localhost"),
        ("localhost", "http://localhost:80"),
        ("localhost:443", "https://localhost"),
        ("localhost", "https://LOCALHOST"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("[::1]:80", "http://[::1]"),
    ],
)
def test_default_ports_are_the_same_site(local: Settings, host: str, origin: str) -> None:
    status, answer = ask(local, "POST", "/predict", '{"model_name": "none"}', host=host, origin=origin)
    assert (status, "no model" in answer) == (404, True)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:80", "https://localhost"),
        ("localhost:8000", "http://localhost"),
        ("localhost", "http://127.0.0.1"),
        ("localhost", "null"),
        ("localhost", "http://localhost:x"),
        ("localhost", "http://[localhost"),
        ("localhost", "http://localhost@evil.example.org"),
    ],
)
def test_another_port_or_name_is_another_site(local: Settings, host: str, origin: str) -> None:
    status, answer = ask(local, "POST", "/predict", '{"model_name": "none"}', host=host, origin=origin)
    assert status == 403
    assert "CITY_PUBLIC_URL" in answer
    assert "CITY_CORS_ORIGINS" in answer


def test_behind_a_proxy_the_public_address_is_ours(proxied: Settings) -> None:
    key = Keys(proxied).add("page", "client")
    upstream = f"127.0.0.1:{proxied.serve_port}"
    until(lambda: ask(proxied, "GET", "/models", host=upstream, x_api_key=key)[0] == 200)
    for host in (upstream, "city.example.org", "city.example.org:443"):
        for origin in (PUBLIC, f"{PUBLIC}:443"):
            answer = ask(proxied, "POST", "/predict", '{"model_name": "none"}', host=host, origin=origin, x_api_key=key)
            assert (answer[0], "no model" in answer[1]) == (404, True), (host, origin)
    other = "http://city.example.org"
    assert ask(proxied, "POST", "/predict", "{}", host=upstream, origin=other, x_api_key=key)[0] == 403
    # Whoever comes through the proxy is not on this machine.
    assert ask(proxied, "GET", "/models", host="city.example.org")[0] == 401
    stream = f"ws://127.0.0.1:{proxied.serve_port}/ws/stream"
    with connect(stream, origin=PUBLIC, subprotocols=[Subprotocol(PROTOCOL), Subprotocol(key)]) as socket:  # type: ignore[arg-type]
        assert json.loads(socket.recv(timeout=10))["type"] == "snapshot"


def test_a_public_address_on_loopback_wants_no_keys() -> None:
    assert not Settings(public_url="http://localhost:8080").wants_keys
    assert Settings(public_url="http://127.0.0.1.nip.io").wants_keys
    assert not Settings(public_url="").wants_keys
    assert Settings(public_url="https://[2001:db8::7]:8443/").wants_keys
    for wrong, means in (
        ("city.example.org", "neither https:// nor http://"),
        ("ftp://city.example.org", "neither https:// nor http://"),
        ("https://city.example.org/below", "leave out what follows"),
        ("https://city.example.org?a=1", "leave out what follows"),
        ("https://city.example.org#map", "leave out what follows"),
        ("https://ada@city.example.org", "a user's name"),
        ("https://", "its host is of letters"),
        ("https://:8000", "its host is of letters"),
        ("https://the city", "its host is of letters"),
        ("https://städte.example.org", "xn--"),
        ("https://city.example.org:99999", "ort"),
        ("https://city.example.org:https", "ort"),
        ("https://[::1", "IPv6"),
    ):
        with pytest.raises(ValidationError, match=f"no address of a server: .*{means}.*such as https://city"):
            Settings(public_url=wrong)


def read_to_the_end(socket: ClientConnection) -> tuple[int | None, str | None]:
    """The code and reason of the server's close."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            socket.recv(timeout=10)
    return socket.close_code, socket.close_reason


def test_the_socket_of_a_key_that_is_revoked_is_closed(proxied: Settings) -> None:
    keys, stream = Keys(proxied), f"ws://127.0.0.1:{proxied.serve_port}/ws/stream"
    secrets = {name: keys.add(name, "viewer") for name in ("leaves", "stays")}
    tokens = {}
    for name, key in secrets.items():
        form = {"grant_type": "client_credentials", "client_id": name, "client_secret": key}
        url = f"http://127.0.0.1:{proxied.serve_port}/token"
        tokens[name] = until(
            lambda url=url, form=form: requests.post(url, data=form, timeout=10).json()["access_token"]
        )
    with (
        connect(stream, subprotocols=[Subprotocol(PROTOCOL), Subprotocol(secrets["leaves"])]) as of_key,
        connect(stream, subprotocols=[Subprotocol(PROTOCOL), Subprotocol(tokens["leaves"])]) as of_token,
        connect(stream, additional_headers={"x-api-key": secrets["stays"]}) as of_another,
    ):
        keys.revoke("leaves")
        for socket in (of_key, of_token):
            assert read_to_the_end(socket) == (1008, "this key was revoked")
        for _ in range(5):
            of_another.recv(timeout=10)


def test_unknown_keys_are_limited_by_address_and_known_ones_are_not(proxied: Settings) -> None:
    """Addresses as the proxy names them."""
    key = Keys(proxied).add("owner", "viewer")
    host = f"127.0.0.1:{proxied.serve_port}"

    def status(given: str, client: str = "198.51.100.7", path: str = "/models") -> int:
        return ask(proxied, "GET", path, host=host, x_api_key=given, x_forwarded_for=client)[0]

    until(lambda: status(key) == 200)
    guesses = [status(f"city_guess{n}") for n in range(30)]
    assert guesses.count(401) < 14
    assert set(guesses) == {401, 429}
    answer = ask(proxied, "GET", "/models", host=host, x_api_key="city_guess", x_forwarded_for="198.51.100.7")
    assert "CITY_FAILED_KEYS_A_MINUTE" in answer[1]
    assert "city_guess" not in answer[1]
    assert status(key) == 200
    assert status("city_guess", "198.51.100.8") == 401
    form = "grant_type=client_credentials&client_id=owner&client_secret=city_guess"
    kind = {"content_type": "application/x-www-form-urlencoded", "host": host}
    assert ask(proxied, "POST", "/token", form, x_forwarded_for="198.51.100.7", **kind)[0] == 429
    assert ask(proxied, "POST", "/token", form, x_forwarded_for="198.51.100.9", **kind)[0] == 401
