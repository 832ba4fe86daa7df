"""Messages to real servers: HTTP and SMTP ones of the test's own, which answer, refuse and go away."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from pydantic import SecretStr

from city.alerts.channels import channels
from city.alerts.desk import Desk
from city.alerts.dispatch import announce, deliver
from city.alerts.model import AlertError, Finding
from city.settings import Settings
from city.stack.embedded import free_ports

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
LOW = Finding("check/gold/a/low", "warning", "a < b & low", "gold/a")
HIGH = Finding("check/gold/a/high", "error", "a is high", "gold/a")


class Hook:
    """An HTTP server that keeps what is posted to it."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, Any]] = []
        self.status = 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if hook.status == 200:
                    hook.bodies.append((self.path, json.loads(body)))
                self.send_response(hook.status)
                self.end_headers()
                self.wfile.write(b"ok" if hook.status == 200 else b"not now")

            def log_message(self, *arguments: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, path: str) -> list[Any]:
        return [body for at, body in self.bodies if at == path]


class Mailbox:
    def __init__(self) -> None:
        self.letters: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.letters.append(envelope)
        return "250 OK"


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    yield found
    found.server.shutdown()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(f"sqlite:///{tmp_path / 'alerts.db'}")


@pytest.fixture
def reached(config: Settings, hook: Hook) -> Settings:
    changes = {
        "alert_webhook_url": SecretStr(f"{hook.url}/all"),
        "alert_slack_url": SecretStr(f"{hook.url}/slack"),
        "alert_sms_url": SecretStr(f"{hook.url}/sms"),
        "alert_sms_to": "+15550100",
    }
    return config.model_copy(update=changes)


def tell(desk: Desk, config: Settings, *found: Finding, now: datetime = NOW) -> tuple[int, int]:
    raised, cleared = desk.report(found, "check/", now)
    announce(desk, config, "raised", raised, now)
    announce(desk, config, "cleared", cleared, now)
    return deliver(desk, config, now)


def test_each_channel_gets_what_is_grave_enough_for_it_in_its_own_form(
    desk: Desk, reached: Settings, hook: Hook
) -> None:
    assert tell(desk, reached, LOW, HIGH) == (3, 0)
    (plain,) = hook.of("/all")
    assert [alarm["title"] for alarm in plain["alarms"]] == ["a < b & low", "a is high"], "one message a group"
    (slack,) = hook.of("/slack")
    assert "[warning] a &lt; b &amp; low (raised, 1 times, alarm 1)" in slack["text"]
    (sms,) = hook.of("/sms")
    assert sms["to"] == "+15550100"
    assert "a is high" in sms["text"]
    assert "low" not in sms["text"], "a warning wakes nobody"


def test_the_same_news_is_told_once(desk: Desk, reached: Settings, hook: Hook) -> None:
    tell(desk, reached, LOW)
    for minute in range(1, 4):
        assert tell(desk, reached, LOW, now=NOW + timedelta(minutes=minute)) == (0, 0)
    announce(desk, reached, "raised", [1], NOW)
    assert deliver(desk, reached, NOW) == (0, 0)
    assert tell(desk, reached, now=NOW + timedelta(minutes=5)) == (2, 0)
    assert hook.of("/all")[-1]["event"] == "cleared"
    assert tell(desk, reached, LOW, now=NOW + timedelta(minutes=6)) == (2, 0), "that it came back is news"


def test_what_is_silenced_is_kept_and_not_sent(desk: Desk, reached: Settings, hook: Hook) -> None:
    desk.silence("check/gold/*", timedelta(days=99_999), "ada")
    assert tell(desk, reached, LOW) == (0, 0)
    assert [alarm.count for alarm in desk.alarms()] == [1]


def test_a_server_that_refuses_is_tried_again_and_gets_each_message_once(
    desk: Desk, reached: Settings, hook: Hook
) -> None:
    hook.status = 503
    assert tell(desk, reached, LOW) == (0, 2)
    assert "503: not now" in desk.failures()[0]["error"]
    assert deliver(desk, reached, NOW + timedelta(seconds=29)) == (0, 0)
    assert deliver(desk, reached, NOW + timedelta(seconds=31)) == (0, 2)
    hook.status = 200
    assert deliver(desk, reached, NOW + timedelta(minutes=3)) == (2, 0)
    assert deliver(desk, reached, NOW + timedelta(hours=3)) == (0, 0)
    assert desk.failures() == []


def test_a_letter_reaches_a_mail_server_when_it_is_back(desk: Desk, config: Settings) -> None:
    (port,) = free_ports(1)
    changes = {"alert_email_to": ["ada@city", "bo@city"], "smtp_address": f"127.0.0.1:{port}", "smtp_tls": False}
    by_mail = config.model_copy(update=changes)
    assert tell(desk, by_mail, LOW, HIGH) == (0, 1)
    assert "email: [Errno 111] Connection refused" in desk.failures()[0]["error"]
    box = Mailbox()
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    try:
        assert deliver(desk, by_mail, NOW + timedelta(minutes=1)) == (1, 0)
    finally:
        server.stop()
    (letter,) = box.letters
    assert letter.rcpt_tos == ["ada@city", "bo@city"]
    content = letter.content.decode()
    assert "Subject: [error] gold/a: 2 alarm(s)" in content
    assert "a is high" in content


def test_mail_without_a_server_is_refused_with_the_mend(config: Settings) -> None:
    with pytest.raises(AlertError, match="set CITY_SMTP_ADDRESS"):
        channels(config.model_copy(update={"alert_email_to": ["ada@city"]}))
