"""Messages to real servers: HTTP and SMTP ones of the test's own, which answer, refuse and go away."""

import json
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from pydantic import SecretStr

from city.alerts.channels import addresses, sender
from city.alerts.dispatch import DeliveryResult, deliver
from city.alerts.model import AlertError, Finding
from city.alerts.store import AlertStore
from city.settings import Settings
from city.stack.embedded import free_ports
from tests.city.alerts import flapping
from tests.faults import FaultTable

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
LOW = Finding("check/gold/a/low", "warning", "a < b & low", "gold/a")
HIGH = Finding("check/gold/a/high", "error", "a is high", "gold/a", labels={"machine_id": "m1"})


class Hook:
    """An HTTP server that keeps what is posted to it, and answers as it is told to."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, Any]] = []
        self.status = 200
        self.answer = b"ok"
        self.refused = b"nothing"
        """What a body has that is answered with 400."""
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = 400 if hook.refused in body else hook.status
                if status == 200 and hook.answer == b"ok":
                    hook.bodies.append((self.path, json.loads(body)))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(hook.answer if status == 200 else b"not now")

            def log_message(self, *arguments: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def of(self, path: str) -> list[Any]:
        return [body for at, body in self.bodies if at == path]


class Mailbox:
    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.messages.append(envelope)
        return "250 OK"


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    yield server
    server.server.shutdown()


@pytest.fixture
def reached(config: Settings, hook: Hook) -> Settings:
    changes = {
        "alert_webhook_url": SecretStr(f"{hook.url}/all"),
        "alert_slack_url": SecretStr(f"{hook.url}/slack"),
        "alert_sms_url": SecretStr(f"{hook.url}/sms"),
        "alert_sms_to": "+15550100",
        "alert_pagerduty_key": SecretStr("the-key"),
        "alert_pagerduty_url": f"{hook.url}/pagerduty",
    }
    return config.model_copy(update=changes)


@pytest.fixture
def store(reached: Settings, tmp_path: Path) -> AlertStore:
    return AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}", addresses(reached))


def minutes(count: float) -> datetime:
    return NOW + timedelta(minutes=count)


def over(finding: Finding) -> Finding:
    return replace(finding, state="passing")


def tell(store: AlertStore, config: Settings, *findings: Finding, now: datetime = NOW) -> tuple[int, int]:
    """Reports and looks, as a worker does, until nothing is left to be sent at that moment."""
    store.sync_findings(findings, None, now)
    store.tick(now=now)
    sent = failed = 0
    while (done := deliver(store, config, now)) != DeliveryResult():
        sent, failed = sent + done.sent, failed + done.failed
    return sent, failed


def test_each_channel_gets_what_is_grave_enough_for_it_in_its_own_form(
    store: AlertStore, reached: Settings, hook: Hook
) -> None:
    assert tell(store, reached, LOW, HIGH) == (4, 0)
    (plain,) = hook.of("/all")
    assert [alarm["title"] for alarm in plain["alarms"]] == ["a < b & low", "a is high"], "one message a group"
    (slack,) = hook.of("/slack")
    assert "[warning] raised: a &lt; b &amp; low (alarm 1, once)" in slack["text"]
    assert "[warning] raised: a < b & low" in slack["blocks"][0]["text"]["text"], "in plain text nothing is markup"
    (sms,) = hook.of("/sms")
    assert sms["to"] == "+15550100"
    assert "a is high" in sms["text"]
    assert "low" not in sms["text"], "a warning wakes nobody"
    (page,) = hook.of("/pagerduty")
    assert (page["routing_key"], page["event_action"]) == ("the-key", "trigger")
    assert page["dedup_key"] == f"city-{store.id}-2"
    assert page["payload"]["severity"] == "error"
    assert page["payload"]["custom_details"] == {"machine_id": "m1"}


def test_the_least_severity_of_a_channel_is_a_setting(config: Settings, hook: Hook, tmp_path: Path) -> None:
    changes = {"alert_webhook_url": SecretStr(hook.url), "alert_webhook_least": "error"}
    high = config.model_copy(update=changes)
    store = AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}", addresses(high))
    tell(store, high, LOW, HIGH)
    assert [alarm["title"] for _, body in hook.bodies for alarm in body["alarms"]] == ["a is high"]


def test_the_same_news_is_told_once(store: AlertStore, reached: Settings, hook: Hook) -> None:
    tell(store, reached, LOW)
    for minute in range(1, 4):
        assert tell(store, reached, LOW, now=minutes(minute)) == (0, 0)
    tell(store, reached, over(LOW), now=minutes(5))
    assert hook.of("/all")[-1]["event"] == "cleared"
    tell(store, reached, LOW, now=minutes(6))
    assert [body["event"] for body in hook.of("/all")] == ["raised", "cleared", "raised"], "that it came back is news"


def test_an_incident_is_triggered_acknowledged_and_resolved_in_that_order(
    store: AlertStore, reached: Settings, hook: Hook
) -> None:
    hook.status = 503
    tell(store, reached, HIGH)
    store.acknowledge(1, "ada", now=minutes(1))
    tell(store, reached, over(HIGH), now=minutes(2))
    hook.status = 200
    # The first attempt's wait is over; what came later waits for it, and for nothing else.
    for minute in (10, 20, 80):
        tell(store, reached, now=minutes(minute))
    assert [page["event_action"] for page in hook.of("/pagerduty")] == ["trigger", "acknowledge", "resolve"]
    assert {page["dedup_key"] for page in hook.of("/pagerduty")} == {f"city-{store.id}-1"}
    assert [body["event"] for body in hook.of("/all")] == ["raised", "cleared"]


def test_two_cities_with_one_integration_key_have_incidents_of_their_own(
    store: AlertStore, reached: Settings, hook: Hook, tmp_path: Path
) -> None:
    tell(store, reached, HIGH)
    tell(AlertStore(f"sqlite:///{tmp_path / 'other.db'}", addresses(reached)), reached, HIGH)
    again = AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}", addresses(reached))
    tell(again, reached, over(HIGH), now=minutes(1))
    first, second, resolved = [page["dedup_key"] for page in hook.of("/pagerduty")]
    assert first != second
    assert resolved == first, "a server that was started again knows its incidents"
    assert len(first) <= 255


def test_a_message_of_an_earlier_version_that_waits_is_sent(store: AlertStore, reached: Settings, hook: Hook) -> None:
    store.sync_findings([HIGH], None, NOW)
    messages = [message for message in store.outbox.lease(NOW) if message.channel == "pagerduty"]
    for message in messages:
        del message.message["alarms"][0]["dedup_key"]
        sender(reached, "pagerduty")(message.message)
    assert [page["dedup_key"] for page in hook.of("/pagerduty")] == ["city-alarm-1"]


def test_when_a_silence_ends_one_message_is_sent_of_what_is_still_wrong(
    store: AlertStore, reached: Settings, hook: Hook, table: FaultTable
) -> None:
    store.silence("check/gold/*", timedelta(minutes=10), "ada", now=NOW)
    assert tell(store, reached, LOW, HIGH) == (0, 0)
    tell(store, reached, over(HIGH), now=minutes(5))
    assert [(alarm.count, alarm.silenced) for alarm in store.alarms(now=minutes(5))] == [(1, True), (1, True)]
    tell(store, reached, LOW, now=minutes(9))
    began = time.monotonic()
    tell(store, reached, LOW, now=minutes(11))
    seconds = time.monotonic() - began
    tell(store, reached, LOW, now=minutes(12))
    assert [(b["event"], [a["title"] for a in b["alarms"]]) for b in hook.of("/all")] == [("raised", ["a < b & low"])]
    said, lost = "told once, by the first look after the silence", 2 - len(hook.bodies)
    table.add("an alarm is raised in a silence", said, seconds, lost, "webhook, Slack")


def test_who_was_told_hears_of_the_end_in_a_silence_too(store: AlertStore, reached: Settings, hook: Hook) -> None:
    tell(store, reached, HIGH)
    store.silence("*", timedelta(days=366), "ada", now=NOW)
    tell(store, reached, over(HIGH), now=minutes(1))
    assert [page["event_action"] for page in hook.of("/pagerduty")] == ["trigger", "resolve"]


def test_a_rise_in_severity_is_told_and_a_fall_is_not(store: AlertStore, reached: Settings, hook: Hook) -> None:
    for minute, severity in enumerate(("warning", "error", "error", "warning", "error", "critical")):
        tell(store, reached, replace(LOW, severity=severity), now=minutes(minute))  # type: ignore[arg-type]
    sent = [(body["event"], body["alarms"][0]["severity"]) for body in hook.of("/all")]
    assert sent == [("raised", "warning"), ("graver", "error"), ("graver", "critical")]
    assert len(hook.of("/pagerduty")) == 2, "from error on"


def test_who_was_told_hears_of_the_end_however_mild_it_has_become(
    store: AlertStore, reached: Settings, hook: Hook
) -> None:
    tell(store, reached, replace(LOW, severity="error"))
    tell(store, reached, LOW, now=minutes(1))
    tell(store, reached, over(LOW), now=minutes(2))
    raised, cleared = (sms["text"] for sms in hook.of("/sms"))
    assert "[error] raised: a < b & low (alarm 1, once" in raised
    assert "[warning] cleared: a < b & low (alarm 1, 2 times" in cleared


def incidents(hook: Hook) -> list[str]:
    """What PagerDuty was told of its incidents, in order."""
    return [page["event_action"] for page in hook.of("/pagerduty")]


def test_who_was_told_hears_of_the_acknowledgement_however_mild_it_has_become(
    store: AlertStore, reached: Settings, hook: Hook
) -> None:
    tell(store, reached, HIGH)
    tell(store, reached, replace(HIGH, severity="warning"), now=minutes(1))
    store.acknowledge(1, "ada", now=minutes(2))
    tell(store, reached, over(HIGH), now=minutes(3))
    assert incidents(hook) == ["trigger", "acknowledge", "resolve"]
    assert [body["event"] for body in hook.of("/all")] == ["raised", "cleared"], "which only incidents follow"


def test_an_incident_of_a_flapping_cause_is_acknowledged_while_the_cause_is_away(
    store: AlertStore, reached: Settings, hook: Hook
) -> None:
    for minute in range(6):
        tell(store, reached, HIGH if minute % 2 == 0 else over(HIGH), now=minutes(minute))
    store.acknowledge(1, "ada", now=minutes(6))
    tell(store, reached, now=minutes(6))
    assert incidents(hook)[4:] == ["trigger", "acknowledge"]


def test_who_was_not_told_hears_nothing_of_the_acknowledgement_or_the_end(
    store: AlertStore, reached: Settings, hook: Hook
) -> None:
    tell(store, reached, HIGH)
    tell(store, reached, over(HIGH), now=minutes(1))
    tell(store, reached, replace(HIGH, severity="warning"), now=minutes(20))
    store.acknowledge(1, "ada", now=minutes(21))
    tell(store, reached, over(HIGH), now=minutes(22))
    assert incidents(hook) == ["trigger", "resolve"], "the second time it was a warning"
    assert len(hook.of("/slack")) == 4


def test_an_incident_is_resolved_when_the_setting_would_no_longer_open_it(
    store: AlertStore, reached: Settings, hook: Hook, tmp_path: Path
) -> None:
    tell(store, reached, HIGH)
    fewer = reached.model_copy(update={"alert_pagerduty_least": "critical"})
    tell(AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}", addresses(fewer)), fewer, over(HIGH), now=minutes(1))
    assert incidents(hook) == ["trigger", "resolve"]


def test_a_rise_in_severity_is_told_of_a_cause_that_flaps_too(store: AlertStore, reached: Settings, hook: Hook) -> None:
    for minute in range(6):
        tell(store, reached, LOW if minute % 2 == 0 else over(LOW), now=minutes(minute))
    tell(store, reached, replace(LOW, severity="critical"), now=minutes(6))
    assert [body["event"] for body in hook.of("/all")][-2:] == ["flapping", "graver"]
    tell(store, reached, replace(LOW, severity="critical"), now=minutes(7))
    assert len(hook.of("/all")) == 6


def failures(store: AlertStore) -> list[dict[str, Any]]:
    """The messages that were tried and not sent, as the outbox has them."""
    query = "SELECT channel, key, attempts, error FROM outbox WHERE sent_at IS NULL AND attempts > 0"
    with store._database.engine.connect() as db:
        return [dict(row) for row in db.exec_driver_sql(query).mappings()]


def test_an_error_of_a_channel_does_not_tell_its_secret(config: Settings, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    secret = config.model_copy(
        update={"alert_slack_url": SecretStr(f"http://127.0.0.1:{port}/services/T0/very-secret")}
    )
    store = AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}", addresses(secret))
    tell(store, secret, HIGH)
    assert "no answer from 127.0.0.1: ConnectionError" in failures(store)[0]["error"]
    assert "very-secret" not in failures(store)[0]["error"]


def test_a_channel_that_is_slow_is_left_before_its_messages_may_be_taken_by_another(
    store: AlertStore, reached: Settings, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("city.alerts.dispatch._SECONDS", 0.0)
    store.sync_findings([replace(HIGH, cause=f"check/{n}", group=str(n)) for n in range(3)], None, NOW)
    assert deliver(store, reached, NOW) == DeliveryResult(0, 0)
    monkeypatch.setattr("city.alerts.dispatch._SECONDS", 60.0)
    assert deliver(store, reached, NOW).sent == 12, "they were given back at once"


def test_a_cause_that_comes_and_goes_is_told_of_as_that(
    store: AlertStore, reached: Settings, hook: Hook, table: FaultTable
) -> None:
    began = time.monotonic()
    for minute in range(12):
        tell(store, reached, LOW if minute % 2 == 0 else over(LOW), now=minutes(minute))
    assert store.alarms()[0].flapping
    assert [body["event"] for body in hook.of("/all")] == ["raised", "cleared", "raised", "cleared", "flapping"]
    tell(store, reached, now=minutes(68))
    assert store.alarms()[0].flapping, "of the hour before are three changes, so two more messages would be too many"
    tell(store, reached, now=minutes(70))
    assert not store.alarms()[0].flapping
    assert [body["event"] for body in hook.of("/all")][5:] == ["cleared"], "and how it ended"
    events = [body["event"] for body in hook.of("/all")]
    said = f"{len(events)} messages: {', '.join(events)}"
    lost = int(events[-1] != "cleared")
    table.add("a cause changes twelve times", said, time.monotonic() - began, lost, "webhook")


def test_a_third_outage_within_the_hour_pages_and_a_healthy_city_has_no_open_incident(
    store: AlertStore, reached: Settings, hook: Hook
) -> None:
    """Each outage softens to a warning before it ends, as that of a part that is killed does."""
    soft = replace(HIGH, severity="warning")
    for minute in (0, 10):
        for at, finding in enumerate((HIGH, soft, over(HIGH))):
            tell(store, reached, finding, now=minutes(minute + at))
    assert incidents(hook) == ["trigger", "resolve", "trigger", "resolve"], "each of two outages is whole"
    tell(store, reached, HIGH, now=minutes(20))
    assert incidents(hook)[4:] == ["trigger"]
    assert "flapping" in hook.of("/pagerduty")[-1]["payload"]["summary"]
    for minute in range(21, 50):  # it lasts; then it comes and goes
        tell(store, reached, HIGH if minute < 40 or minute % 2 == 0 else over(HIGH), now=minutes(minute))
    for minute in range(50, 120):
        tell(store, reached, over(HIGH), now=minutes(minute))
    assert incidents(hook)[5:] == ["resolve"], "and no end is a page"
    (alarm,) = store.alarms()
    assert (alarm.active, alarm.flapping) == (False, False)


def test_of_a_flapping_cause_that_stays_wrong_it_is_told_that_it_does_and_then_its_end(
    store: AlertStore, reached: Settings, hook: Hook
) -> None:
    for minute in range(5):
        tell(store, reached, HIGH if minute % 2 == 0 else over(HIGH), now=minutes(minute))
    for minute in range(5, 90):
        tell(store, reached, HIGH, now=minutes(minute))
    tell(store, reached, over(HIGH), now=minutes(90))
    assert [body["event"] for body in hook.of("/all")][4:] == ["flapping", "raised", "cleared"]
    assert incidents(hook)[4:] == ["trigger", "trigger", "resolve"]


def test_what_began_to_flap_in_a_silence_is_told_when_that_ends(
    store: AlertStore, reached: Settings, hook: Hook
) -> None:
    store.silence("check/*", timedelta(minutes=10), "ada", now=NOW)
    for minute in range(9):
        tell(store, reached, HIGH if minute % 2 == 0 else over(HIGH), now=minutes(minute))
    assert hook.bodies == []
    tell(store, reached, HIGH, now=minutes(11))
    tell(store, reached, over(HIGH), now=minutes(12))
    assert [body["event"] for body in hook.of("/all")] == ["flapping"]
    tell(store, reached, now=minutes(72))
    assert incidents(hook) == ["trigger", "resolve"]


def test_a_flapping_cause_that_comes_back_after_hours_without_a_look_is_told(
    store: AlertStore, reached: Settings, hook: Hook
) -> None:
    for minute in range(6):
        tell(store, reached, HIGH if minute % 2 == 0 else over(HIGH), now=minutes(minute))
    tell(store, reached, HIGH, now=minutes(180))
    assert [body["event"] for body in hook.of("/all")][4:] == ["flapping", "raised"]


KILLS = 20
_ACTIONS = {"raised": "trigger", "flapping": "trigger", "cleared": "resolve"}


def without_repeats(messages: list[Any]) -> list[Any]:
    """What was sent twice follows itself: what comes after is sent only once that is written down as sent."""
    return [message for message, _ in groupby(messages)]


def test_a_thousand_flapping_causes_send_few_messages_and_kills_lose_none(
    config: Settings, hook: Hook, table: FaultTable
) -> None:
    """An hour of simulated time in which a fifth of the causes change every three minutes, and one without a change.
    Meanwhile the process that writes the alarms and sends their messages is killed 20 times, at any moment."""
    changes = {
        "alert_webhook_url": SecretStr(f"{hook.url}/all"),
        "alert_pagerduty_key": SecretStr("the-key"),
        "alert_pagerduty_url": f"{hook.url}/pagerduty",
    }
    config = config.model_copy(update=changes)
    chance, began = random.Random(5), time.monotonic()
    for earlier_lives, round_number in enumerate(sorted(chance.sample(range(len(flapping.HOUR)), KILLS))):
        with flapping.life(config, earlier_lives) as life:
            life.await_round(round_number)
            life.kill(after=chance.uniform(0, 0.3))
        assert life.process.exitcode == -signal.SIGKILL
    with flapping.life(config, KILLS) as life:
        life.await_all_told()
    seconds = time.monotonic() - began

    with closing(sqlite3.connect(config.home / "alerts" / "alerts.db")) as store:
        history: dict[str, list[tuple[float, str]]] = {}
        query = "SELECT cause, at, event FROM alarm_history h JOIN alarms a ON a.id = h.alarm ORDER BY h.id"
        for cause, at, event in store.execute(query):
            if event in ("raised", "raised again", "cleared"):
                history.setdefault(cause, []).append((at, event))
        assert history == flapping.changes(), "each change was written once, whatever was killed"
        posted = store.execute("SELECT channel, message, posted_at FROM outbox ORDER BY id").fetchall()

    wanted: dict[str, dict[str, list[Any]]] = {"webhook": {}, "pagerduty": {}}
    in_hour, ends = Counter[str](), (flapping.BEGIN + timedelta(hours=1)).timestamp()
    for channel, message, at in posted:
        (alarm,) = json.loads(message)["alarms"]
        wanted[channel].setdefault(alarm["cause"], []).append(alarm)
        in_hour[alarm["cause"]] += channel == "webhook" and at < ends
    heard: dict[str, list[Any]] = {}
    for body in hook.of("/all"):
        for alarm in body["alarms"]:
            heard.setdefault(alarm["cause"], []).append(alarm)
    assert {cause: without_repeats(alarms) for cause, alarms in heard.items()} == wanted["webhook"]
    still = {flapping.cause(n) for n in flapping.failing()[-1]}
    last = {cause: alarms[-1]["event"] for cause, alarms in heard.items()}
    assert last == {cause: "raised" if cause in still else "cleared" for cause in history}
    assert max(in_hour.values()) <= 5

    pages: dict[str, list[Any]] = {}
    for page in hook.of("/pagerduty"):
        pages.setdefault(page["dedup_key"], []).append(page)
    expected = {
        alarms[0]["dedup_key"]: [_ACTIONS[alarm["event"]] for alarm in alarms]
        for alarms in wanted["pagerduty"].values()
    }
    assert {key: [page["event_action"] for page in without_repeats(posts)] for key, posts in pages.items()} == expected
    assert all(actions[0] == "trigger" for actions in expected.values()), "what was not opened needs no end"
    paged_again = sum(len(pages[key]) - len(expected[key]) for key in expected)
    assert paged_again <= KILLS, "at most the one that was being sent"

    count, sent = sum(map(len, wanted["webhook"].values())), sum(map(len, heard.values()))
    lost = count - sum(len(without_repeats(alarms)) for alarms in heard.values())
    said = f"{count:,} messages, at most {max(in_hour.values())} of a cause; twice: {sent - count}, pages {paged_again}"
    table.add(f"1,000 causes flap, {KILLS} kills", said, seconds, lost, "webhook, PagerDuty")


def test_a_server_that_refuses_is_tried_again_and_gets_each_message_once(
    store: AlertStore, reached: Settings, hook: Hook
) -> None:
    hook.status = 503
    assert tell(store, reached, LOW) == (0, 2)
    assert "503: not now" in failures(store)[0]["error"]
    assert tell(store, reached, now=NOW + timedelta(seconds=29)) == (0, 0)
    assert tell(store, reached, now=NOW + timedelta(seconds=31)) == (0, 2)
    hook.status = 200
    assert tell(store, reached, now=minutes(3)) == (2, 0)
    assert tell(store, reached, now=minutes(180)) == (0, 0)
    assert failures(store) == []


@pytest.mark.parametrize(
    "answer", [b'{"ok": false, "error": "channel_not_found"}', b'{"status": "invalid event"}', b'{"error": "no"}']
)
def test_an_answer_of_200_that_says_it_failed_has_failed(
    answer: bytes, store: AlertStore, reached: Settings, hook: Hook, table: FaultTable
) -> None:
    hook.answer, began = answer, time.monotonic()
    tell(store, reached, LOW)
    assert "answered 200, and that it failed" in failures(store)[0]["error"]
    said, hook.answer = failures(store)[0]["error"], b"ok"
    assert tell(store, reached, now=minutes(1)) == (2, 0)
    seconds = time.monotonic() - began
    table.add("a channel answers 200 and an error", said, seconds, 2 - len(hook.bodies), "webhook, Slack")


def test_one_message_that_is_refused_holds_back_no_other(store: AlertStore, reached: Settings, hook: Hook) -> None:
    hook.status = 400
    tell(store, reached, HIGH, replace(HIGH, cause="check/gold/b/high", group="gold/b"))
    attempts = [failure["attempts"] for failure in failures(store)]
    assert attempts == [1] * 8, "each was tried, on four channels"


def test_a_channel_that_works_again_is_told_of_the_root_cause_first(
    store: AlertStore, reached: Settings, hook: Hook
) -> None:
    hook.status, consequence = 500, replace(HIGH, cause="check/gold/b/high", title="b is high", group="gold/b")
    for seconds in (0, 31, 92, 213):
        tell(store, reached, HIGH, now=NOW + timedelta(seconds=seconds))
    tell(store, reached, consequence, now=NOW + timedelta(seconds=220))
    hook.status = 200
    assert tell(store, reached, now=NOW + timedelta(seconds=249)) == (0, 0), "the youngest message waits for 30 s"
    assert tell(store, reached, now=NOW + timedelta(seconds=251)) == (8, 0), "and the others with it"
    assert [body["alarms"][0]["title"] for body in hook.of("/all")] == ["a is high", "b is high"]
    assert [page["payload"]["source"] for page in hook.of("/pagerduty")] == [HIGH.cause, consequence.cause]
    assert failures(store) == []


def test_a_message_that_is_refused_while_others_are_taken_waits_for_itself(
    store: AlertStore, reached: Settings, hook: Hook
) -> None:
    hook.refused = b"a is high"
    tell(store, reached, HIGH)
    for second in range(1, 6):
        other = replace(LOW, cause=f"check/gold/b/{second}", title="b")
        assert tell(store, reached, other, now=NOW + timedelta(seconds=second))[0] == 2, "webhook and Slack"
    attempts = {failure["channel"]: failure["attempts"] for failure in failures(store)}
    assert attempts == {"webhook": 2, "slack": 2, "sms": 1, "pagerduty": 1}, (
        "with the first of five others, and not again"
    )
    hook.refused = b"nothing"
    assert tell(store, reached, now=minutes(2)) == (4, 0)


def test_a_title_of_any_kind_is_sent_and_cut(store: AlertStore, reached: Settings, hook: Hook) -> None:
    title = "<b>*bold*</b> & <!channel> 🚦\nSubject: hi" + "x" * 5_000
    tell(store, reached, replace(HIGH, title=title))
    (slack,), (sms,), (page,) = hook.of("/slack"), hook.of("/sms"), hook.of("/pagerduty")
    assert "&lt;!channel&gt;" in slack["text"]
    assert len(slack["blocks"][0]["text"]["text"]) <= 3_000
    assert len(sms["text"]) <= 160
    assert len(page["payload"]["summary"]) <= 1_024
    assert "🚦" in page["payload"]["summary"]
    many = [replace(HIGH, cause=f"check/gold/a/{n}", title="y" * 200) for n in range(40)]
    tell(store, reached, *many, now=minutes(1))
    assert "... and " in hook.of("/slack")[-1]["blocks"][0]["text"]["text"]


@pytest.mark.parametrize("length", [10, 100, 299, 5_000])
def test_a_text_says_what_happened_however_long_the_title_is(
    length: int, store: AlertStore, reached: Settings, hook: Hook
) -> None:
    grave = [replace(HIGH, cause=f"check/{n}", title="y" * length, group="g" * 150) for n in range(3)]
    tell(store, reached, *grave)
    for number in (1, 2, 3):
        store.assign(number, "ada" * 60, "bo", now=minutes(1))
    tell(store, reached, *map(over, grave), now=minutes(2))
    for body, event in zip(hook.of("/slack"), ("raised", "cleared"), strict=True):
        lines = body["text"].splitlines()[1:]
        assert all(line.startswith(f"[error] {event}: y") for line in lines)
        assert [f"(alarm {number}, once" in line for number, line in enumerate(lines, 1)] == [True] * 3
        assert max(map(len, lines)) <= 300
    for body, event in zip(hook.of("/sms"), ("raised", "cleared"), strict=True):
        assert f"[error] {event}: y" in body["text"]
        assert "(alarm 1, once" in body["text"]
        assert body["text"].endswith(" more")
        assert len(body["text"]) <= 160


def test_a_letter_reaches_a_mail_server_when_it_is_back(config: Settings, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    changes = {"alert_email_to": ["ada@city", "bo@city"], "smtp_address": f"127.0.0.1:{port}", "smtp_tls": False}
    by_mail = config.model_copy(update=changes)
    store = AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}", addresses(by_mail))
    assert tell(store, by_mail, LOW, HIGH) == (0, 1)
    assert "email: [Errno 111] Connection refused" in failures(store)[0]["error"]
    box = Mailbox()
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    try:
        assert tell(store, by_mail, now=minutes(1)) == (1, 0)
    finally:
        server.stop()
    (message,) = box.messages
    assert message.rcpt_tos == ["ada@city", "bo@city"]
    content = message.content.decode()
    assert "Subject: [error] gold/a: 2 alarm(s) raised" in content
    assert "a is high" in content


def test_a_channel_whose_settings_are_wrong_loses_nothing(
    config: Settings, hook: Hook, tmp_path: Path, table: FaultTable
) -> None:
    """Nor does another channel wait for it; when it is right, the message is sent."""
    wrong = config.model_copy(
        update={"alert_email_to": ["ada@city"], "smtp_tls": False, "alert_webhook_url": SecretStr(hook.url)}
    )
    url = f"sqlite:///{tmp_path / 'alerts.db'}"
    store, began = AlertStore(url, addresses(wrong)), time.monotonic()
    assert tell(store, wrong, LOW) == (1, 1)
    (failure,) = failures(store)
    assert "set CITY_SMTP_ADDRESS" in failure["error"]
    box, (port,) = Mailbox(), free_ports(1)
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    try:
        right = wrong.model_copy(update={"smtp_address": f"127.0.0.1:{port}"})
        assert tell(AlertStore(url, addresses(right)), right, now=minutes(2)) == (1, 0)
    finally:
        server.stop()
    assert "low" in box.messages[0].content.decode()
    seconds = time.monotonic() - began
    table.add("a channel's settings are wrong", failure["error"], seconds, 1 - len(box.messages), "e-mail, when right")


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ({"alert_email_to": ["ada@city"]}, "email", "set CITY_SMTP_ADDRESS"),
        ({"alert_email_to": ["ada@city"], "smtp_address": "mail"}, "email", "'mail' is not host:port"),
        ({"alert_sms_url": SecretStr("http://127.0.0.1")}, "sms", "set CITY_ALERT_SMS_TO"),
        ({}, "slack", "'slack' is no longer in the settings"),
    ],
)
def test_settings_that_cannot_send_are_refused_with_the_mend(
    config: Settings, changes: dict[str, Any], name: str, message: str
) -> None:
    with pytest.raises(AlertError, match=message):
        sender(config.model_copy(update=changes), name)
