"""What the server holds once for all that it does."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from pydantic import SecretStr

from city.alerts.model import Finding
from city.alerts.store import AlertStore, alert_store
from city.settings import Settings
from city.stack.state import SERVER
from tests.city.alerts.test_dispatch import Hook
from tests.city.serving.served import serving
from tests.commands import city
from tests.live import until


def test_the_store_of_alarms_is_opened_once(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    init = AlertStore.__init__

    def counted(store: AlertStore, url: str, *rest: Any) -> None:
        opened.append(url)
        init(store, url, *rest)

    monkeypatch.setattr(AlertStore, "__init__", counted)
    with serving(config) as url:
        for lease in ("watch", "reader"):
            until((config.home / "alerts" / f".alerts.db.{lease}.lock").exists)
        assert requests.get(f"{url}/api/alarms", timeout=10).ok
        assert requests.get(f"{url}/metrics", timeout=10).ok
    assert len(opened) == 1


@pytest.fixture
def refusing() -> Iterator[Hook]:
    server = Hook()
    server.status = 500
    yield server
    server.server.shutdown()


def test_a_channel_that_is_away_is_told_where_people_look(config: Settings, refusing: Hook) -> None:
    config = config.model_copy(update={"alert_webhook_url": SecretStr(refusing.url)})
    alert_store(config).sync_findings([Finding("check/a/b", "error", "a is wrong", "a")])
    with serving(config) as url:

        def health() -> Any:
            return requests.get(f"{url}/health", timeout=20).json()

        until(lambda: not health()["dependencies"]["alarm channels"]["ok"])
        answer = health()
        assert answer["dependencies"]["alarm channels"]["detail"].endswith("webhook: the server answered 500: not now")
        assert not answer["dependencies"]["alarm channels"]["needed"]
        metrics = requests.get(f"{url}/metrics", timeout=10).text
        assert 'alarm_messages_waiting{channel="webhook"} 1.0' in metrics
        assert 'alarms_active{severity="error"} 1.0' in metrics
        assert 'alarms_active{severity="critical"} 0.0' in metrics
        until(lambda: "alarm channel webhook: 1 waiting since " in city("status"))
    beat = config.run / SERVER
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    beat.write_text(json.dumps(json.loads(beat.read_text()) | {"pid": ended.pid}))
    assert "alarm channel" not in city("status"), "of a server that has ended nothing is known"
