"""Who may come in: a server that wants keys, asked over HTTP."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from starlette.types import Message
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from city.server.app import build, server
from city.settings import Settings
from city.stack.embedded import settings_at
from city.web.guard import PROTOCOL
from city.web.keys import Keys
from tests.city.serving.served import serving
from tests.live import until


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Settings]]:
    home: Path = tmp_path_factory.mktemp("home")
    config = settings_at(home, home, auth="on", rate_limit=50.0, cors_origins=["https://maps.example.org"])
    with serving(config, []) as url:
        yield url, config


def get(url: str, path: str, **headers: str) -> requests.Response:
    return requests.get(url + path, headers=headers, timeout=10)


def test_keys_open_what_their_role_may(guarded: tuple[str, Settings]) -> None:
    url, config = guarded
    keys = {role: Keys(config).add(role, role) for role in ("viewer", "client", "operator", "admin")}
    time.sleep(1.1)
    refused = get(url, "/models")
    assert refused.status_code == 401
    assert "city keys add" in refused.json()["detail"]
    assert refused.headers["www-authenticate"] == "Bearer"
    assert get(url, "/health/live").ok
    assert get(url, "/api/config").json()["wants_key"]
    assert get(url, "/models", **{"x-api-key": keys["viewer"]}).ok
    assert get(url, "/models", authorization=f"Bearer {keys['viewer']}").ok
    assert get(url, "/audit", **{"x-api-key": keys["admin"]}).ok
    for role, method, path in (
        ("viewer", "POST", "/predict"),
        ("client", "POST", "/api/alarms/1/acknowledge"),
        ("operator", "GET", "/audit"),
    ):
        response = requests.request(method, url + path, json={}, headers={"x-api-key": keys[role]}, timeout=10)
        assert response.status_code == 403, (role, path, response.text)
        assert "this needs the role" in response.json()["detail"]
    wrong = get(url, "/models", **{"x-api-key": "city_wrong"})
    assert wrong.status_code == 401
    assert "city_wrong" not in wrong.text


def test_a_key_is_exchanged_for_a_token_that_expires(
    guarded: tuple[str, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, config = guarded
    key = Keys(config).add("exchange", "client")
    time.sleep(1.1)
    form = {"grant_type": "client_credentials", "client_id": "exchange", "client_secret": key}
    made = requests.post(f"{url}/token", data=form, timeout=10).json()
    assert made["scope"] == "client"
    assert get(url, "/models", authorization=f"Bearer {made['access_token']}").ok
    another = requests.post(f"{url}/token", data={**form, "client_id": "ada"}, timeout=10)
    assert another.status_code == 401
    old = Keys(config).add("old", "client", days=1e-9)
    time.sleep(1.1)
    expired = get(url, "/models", **{"x-api-key": old})
    assert expired.status_code == 401
    assert "expired" in expired.json()["detail"]


def test_too_many_requests_are_told_when_to_come_back(guarded: tuple[str, Settings]) -> None:
    url, config = guarded
    key, other = Keys(config).add("hasty", "viewer", rate=1), Keys(config).add("calm", "viewer")
    time.sleep(1.1)
    with requests.Session() as session:
        session.headers["x-api-key"] = key
        responses = [session.get(f"{url}/v2/models/none", timeout=10) for _ in range(25)]
    limited = [answer for answer in responses if answer.status_code == 429]
    assert 5 < len(limited) < 25
    assert limited[0].headers["retry-after"] == "1"
    assert get(url, "/models", **{"x-api-key": other}).status_code == 200, "a limit is of its key alone"


@pytest.mark.parametrize("path", ["/predict", "/feedback"])
def test_a_client_that_goes_away_is_no_error_of_the_server(
    config: Settings, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None: ...

    headers = [(b"host", b"127.0.0.1"), (b"content-length", b"50")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    asyncio.run(build(config, [])(scope, receive, send))
    assert next(messages, None) is None
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_only_batches_may_be_large(guarded: tuple[str, Settings]) -> None:
    """All other bodies are read within the event loop, or by one thread beside it."""
    url, config = guarded
    key = Keys(config).add("large", "admin")
    until(lambda: get(url, "/models", **{"x-api-key": key}).ok)
    body = b'{"model_name": "none", "instances": [[1]]' + b" " * 1_500_000 + b"}"
    headers = {"x-api-key": key, "content-type": "application/json"}
    for method, path, status in (
        ("POST", "/predict", 413),
        ("POST", "/feedback", 413),
        ("POST", "/token", 413),
        ("PUT", "/models/none/routing", 413),
        ("POST", "/api/alarms/1/acknowledge", 413),
        ("POST", "/predict/batch", 404),
        ("POST", "/v2/models/none/infer", 404),
    ):
        response = requests.request(method, url + path, data=body, headers=headers, timeout=120)
        assert response.status_code == status, (path, response.text)
        assert ("1 MB" if status == 413 else "no model 'none'") in response.json()["detail"]


def test_named_sites_may_ask_and_others_may_not_change_anything(guarded: tuple[str, Settings]) -> None:
    url, _ = guarded
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    allowed = requests.options(
        f"{url}/predict", headers={"origin": "https://maps.example.org", **preflight}, timeout=10
    )
    assert allowed.headers["access-control-allow-origin"] == "https://maps.example.org"
    other = requests.options(f"{url}/predict", headers={"origin": "https://evil.example.org", **preflight}, timeout=10)
    assert "access-control-allow-origin" not in other.headers
    changed = requests.post(f"{url}/predict", headers={"origin": "https://evil.example.org"}, timeout=10)
    assert changed.status_code == 403


def test_a_browsers_socket_offers_its_key_as_a_subprotocol(guarded: tuple[str, Settings]) -> None:
    url, config = guarded
    key = Keys(config).add("page", "viewer")
    time.sleep(1.1)
    stream = url.replace("http", "ws") + "/ws/stream"
    with pytest.raises(InvalidStatus, match="401"), connect(stream):
        pass
    with (
        pytest.raises(InvalidStatus, match="401"),
        connect(stream, subprotocols=[Subprotocol(PROTOCOL), Subprotocol("no")]),
    ):
        pass
    with connect(stream, subprotocols=[Subprotocol(PROTOCOL), Subprotocol(key)]) as socket:
        assert socket.subprotocol == PROTOCOL
        assert json.loads(socket.recv(timeout=10))["type"] == "snapshot"
        # Kafka is unavailable in this test: the server speaks all the same.
        assert json.loads(socket.recv(timeout=10))["type"] == "delta"


def test_tls_is_a_setting(tmp_path: Path) -> None:
    """With a certificate of our own, which the client is told to trust."""
    cert, key = certificate(tmp_path)
    config = settings_at(tmp_path, tmp_path, tls_cert=cert, tls_key=key)
    running = server(config, [])
    running.config.timeout_graceful_shutdown = 1  # for the client that breaks off below: nothing else is under way
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    try:
        url = f"https://localhost:{config.serve_port}/health/live"
        response = until(lambda: requests.get(url, verify=str(cert), timeout=5))
        assert response.json() == {"live": True}
        assert "max-age" in response.headers["strict-transport-security"]
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url, timeout=5)
    finally:
        running.should_exit = True
        thread.join(30)


def certificate(folder: Path) -> tuple[Path, Path]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return paths
