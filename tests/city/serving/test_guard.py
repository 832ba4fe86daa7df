"""Who may come in: a server that wants keys, asked over HTTP."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from city.serving.keys import Keys
from city.settings import Settings
from city.stack.embedded import settings_at
from tests.city.serving.served import serving


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
        told = requests.request(method, url + path, json={}, headers={"x-api-key": keys[role]}, timeout=10)
        assert told.status_code == 403, (role, path, told.text)
        assert "this needs the role" in told.json()["detail"]
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
    key = Keys(config).add("hasty", "viewer", rate=5)
    time.sleep(1.1)
    with requests.Session() as session:
        session.headers["x-api-key"] = key
        told = [session.get(f"{url}/v2/models/none", timeout=10) for _ in range(25)]
    limited = [answer for answer in told if answer.status_code == 429]
    assert 5 < len(limited) < 20
    assert limited[0].headers["retry-after"] == "1"
    assert get(url, "/models", **{"x-api-key": Keys(config).add("calm", "viewer")}).status_code in (200, 401)


def test_named_sites_may_ask_and_others_may_not_change_anything(guarded: tuple[str, Settings]) -> None:
    url, _ = guarded
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    allowed = requests.options(f"{url}/predict", headers={"origin": "https://maps.example.org", **asked}, timeout=10)
    assert allowed.headers["access-control-allow-origin"] == "https://maps.example.org"
    other = requests.options(f"{url}/predict", headers={"origin": "https://evil.example.org", **asked}, timeout=10)
    assert "access-control-allow-origin" not in other.headers
    changed = requests.post(f"{url}/predict", headers={"origin": "https://evil.example.org"}, timeout=10)
    assert changed.status_code == 403
