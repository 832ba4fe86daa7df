"""Alarms and their states, kept in a real database."""

import json
import math
import random
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from city.alerts.channels import Address
from city.alerts.model import AlertError, Finding, Rule
from city.alerts.store import AlertStore, Changes

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
LOW = Finding("check/gold/a/low", "warning", "a is low", "gold/a", {"rows": 3})
HIGH = Finding("check/gold/b/high", "error", "b is high", "gold/b")


EARLIER = """
CREATE TABLE alarms (id INTEGER NOT NULL PRIMARY KEY, cause VARCHAR(500) NOT NULL, severity VARCHAR(10) NOT NULL,
  title VARCHAR(1000) NOT NULL, "group" VARCHAR(200) NOT NULL, detail TEXT, active BOOLEAN NOT NULL,
  acknowledged BOOLEAN NOT NULL, open BOOLEAN NOT NULL, count INTEGER NOT NULL, first_at FLOAT NOT NULL,
  last_at FLOAT NOT NULL, active_at FLOAT NOT NULL, assignee VARCHAR(200), escalations INTEGER NOT NULL);
CREATE TABLE outbox (id INTEGER NOT NULL PRIMARY KEY, "key" VARCHAR(300) NOT NULL UNIQUE, channel VARCHAR(100) NOT NULL,
  message TEXT NOT NULL, attempts INTEGER NOT NULL, next_at FLOAT NOT NULL, sent_at FLOAT, error TEXT);
INSERT INTO alarms VALUES (1, 'check/gold/a/low', 'warning', 'a is low', 'gold/a', NULL, 1, 0, 1, 1, 0, 0, 0, NULL, 0);
INSERT INTO outbox VALUES
  (1, 'k', 'webhook', '{"group": "gold/a", "event": "raised", "alarms": [{}]}', 0, 0, NULL, NULL);
"""
"""A store as version 0.1 made it: an alarm that is active, and its message, which has not been sent."""


def over(finding: Finding) -> Finding:
    return replace(finding, state="passing")


def minutes(count: float) -> datetime:
    return NOW + timedelta(minutes=count)


@pytest.fixture
def store(tmp_path: Path) -> AlertStore:
    return AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}")


def test_a_cause_is_one_alarm_that_counts_its_repeats(store: AlertStore, tmp_path: Path) -> None:
    assert store.sync_findings([LOW], "check/", NOW) == Changes([1], [])
    for minute in range(1, 4):
        assert store.sync_findings([LOW], "check/", minutes(minute)) == Changes([], [])
    (alarm,) = AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}").alarms()
    assert (alarm.count, alarm.first_at, alarm.last_at, alarm.detail) == (4, NOW, minutes(3), {"rows": 3})
    assert alarm.state == "active, unacknowledged"


def test_an_alarm_goes_through_its_four_states(store: AlertStore) -> None:
    store.sync_findings([LOW, HIGH], "check/", NOW)
    assert store.acknowledge(1, "ada", now=NOW).state == "active, acknowledged"
    assert store.sync_findings([over(LOW), over(HIGH)], "check/", minutes(1)) == Changes([], [1, 2])
    assert store.alarm(1).state == "cleared, acknowledged"
    assert store.alarm(2).state == "cleared, unacknowledged"
    assert [alarm.id for alarm in store.alarms()] == [2], "one is dealt with"
    store.tick(now=minutes(12))
    assert store.sync_findings([LOW, HIGH], "check/", minutes(13)) == Changes([3, 2], []), (
        "what was closed is a new alarm"
    )
    assert store.alarm(2).state == "active, unacknowledged"
    assert [entry["event"] for entry in store.history(2)] == ["raised", "cleared", "raised again"]
    assert [entry["by"] for entry in store.history(1)] == [None, "ada", None]


def test_what_is_not_known_changes_nothing(store: AlertStore) -> None:
    store.sync_findings([LOW], "check/", NOW)
    assert store.sync_findings([replace(LOW, state="unknown"), replace(HIGH, state="unknown")], "check/") == Changes(
        [], []
    )
    assert [(alarm.id, alarm.active, alarm.count) for alarm in store.alarms()] == [(1, True, 1)]


def test_an_acknowledgement_holds_as_long_as_the_cause_lasts(store: AlertStore) -> None:
    store.sync_findings([LOW], "check/", NOW)
    store.acknowledge(1, "ada", now=NOW)
    store.sync_findings([replace(LOW, severity="critical")], "check/", minutes(1))
    assert store.alarm(1).state == "active, acknowledged"
    store.sync_findings([over(LOW)], "check/", minutes(2))
    store.tick(now=minutes(3))
    store.sync_findings([LOW], "check/", minutes(4))
    assert [(alarm.id, alarm.acknowledged) for alarm in store.alarms()] == [(1, True)], "it was never away"
    store.sync_findings([over(LOW)], "check/", minutes(5))
    store.sync_findings([LOW], "check/", minutes(16))
    assert store.alarm(1).state == "active, unacknowledged", "eleven minutes later it is another matter"


def test_an_alarm_that_no_look_confirms_is_forgotten_after_a_day_of_looks(store: AlertStore) -> None:
    failed = Finding("run/silver/a", title="a failed run")
    store.sync_findings([LOW, HIGH, failed], None, NOW)
    for hour in range(26):
        store.tick(now=NOW + timedelta(hours=hour))
    assert store.alarm(1).active, "the looks paused, so nothing is known of the time between"
    for minute in range(0, 26 * 60, 5):
        store.tick(now=NOW + timedelta(hours=26, minutes=minute))
        store.sync_findings([replace(HIGH, state="unknown")], None, NOW + timedelta(hours=26, minutes=minute))
    assert store.history(1)[-1]["note"] == "not heard of for a day"
    assert store.alarm(2).active, "what cannot be told now is still looked at"
    assert store.alarm(3).active, "a run is told of once"


def test_an_alarm_that_is_over_and_that_nobody_takes_is_closed_after_a_day(store: AlertStore) -> None:
    store.sync_findings([LOW], None, NOW)
    store.sync_findings([over(LOW)], None, minutes(1))
    store.tick(now=NOW + timedelta(hours=23))
    assert store.sync_findings([LOW], None, NOW + timedelta(hours=23)).raised == [1]
    store.sync_findings([over(LOW)], None, NOW + timedelta(hours=24))
    store.tick(now=NOW + timedelta(hours=49))
    assert store.sync_findings([LOW], None, NOW + timedelta(hours=49)).raised == [2]


def test_what_has_ended_is_kept_for_the_retention_and_no_longer(tmp_path: Path) -> None:
    url, days = f"sqlite:///{tmp_path / 'alerts.db'}", timedelta(days=1)
    store = AlertStore(url, [Address("webhook", "info")], retention=10 * days)
    store.sync_findings([LOW, HIGH], None, NOW)
    store.sync_findings([over(LOW)], None, minutes(1))
    store.acknowledge(1, "ada", now=minutes(2))
    while messages := store.outbox.lease(minutes(3)):
        store.outbox.record_attempt(messages, now=minutes(3))
    store.sync_findings([replace(LOW, cause="check/gold/c/new")], None, NOW + 9 * days)

    def kept(day: int) -> tuple[int, list[int], dict[int, int], int]:
        """Messages, alarms, the entries of their history, and messages that wait, after ten minutes of looks."""
        for minute in (0, 10):
            store.tick(now=NOW + day * days + timedelta(minutes=minute))
        with closing(sqlite3.connect(tmp_path / "alerts.db")) as db:
            (messages,) = db.execute("SELECT count(*) FROM outbox").fetchone()
            (waiting,) = db.execute("SELECT count(*) FROM outbox WHERE sent_at IS NULL").fetchone()
            history = dict(db.execute("SELECT alarm, count(*) FROM alarm_history GROUP BY alarm").fetchall())
        return messages, sorted(alarm.id for alarm in store.alarms(closed=True)), history, waiting

    assert kept(9) == (4, [1, 2, 3], {1: 3, 2: 1, 3: 1}, 1)
    assert kept(11) == (1, [2, 3], {3: 1}, 1), "an open alarm stays, and what waits to be sent"
    store.sync_findings([over(HIGH), Finding("check/gold/c/new", state="passing")], None, NOW + 12 * days)
    kept(14)
    assert kept(40)[1] == [3], "the newest, so that no number is given twice"


def test_a_look_with_a_clock_that_is_ahead_deletes_nothing(store: AlertStore) -> None:
    store.sync_findings([LOW], None, NOW)
    store.sync_findings([over(LOW)], None, minutes(1))
    store.sync_findings([HIGH], None, minutes(2))
    for minute in range(20):
        store.tick(now=minutes(minute))
    before = store.alarms(closed=True), store.history(1), store.history(2)
    store.tick(now=NOW + timedelta(days=40))
    assert [alarm.id for alarm in store.alarms(closed=True)] == [alarm.id for alarm in before[0]]
    for minute in range(20, 40):  # the clock is right again
        store.tick(now=minutes(minute))
    assert (store.history(1)[: len(before[1])], store.history(2)) == before[1:]
    for minute in range(0, 20, 5):
        store.tick(now=NOW + timedelta(days=60, minutes=minute))
    assert [alarm.id for alarm in store.alarms(closed=True)] == [2], "once time has really passed"


def test_an_incident_that_was_opened_before_the_store_had_an_id_is_resolved(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "alerts.db")) as db:
        db.executescript(EARLIER)
    for number in (1, 2):  # the second start finds the id that the first one made
        # What the earlier version has told, it did not note: of an incident that may be there, the end is sent.
        store = AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}", [Address("pagerduty", "error", follows=True)])
        store.sync_findings([HIGH] if number == 1 else [over(LOW), over(HIGH)], None, minutes(number))
    pages = []
    while messages := store.outbox.lease(minutes(3)):
        store.outbox.record_attempt(messages, now=minutes(3))
        pages += [
            (x.message["event"], x.message["alarms"][0]["dedup_key"]) for x in messages if x.channel == "pagerduty"
        ]
    new = f"city-{store.id}-2"
    assert sorted(pages) == sorted([("raised", new), ("cleared", "city-alarm-1"), ("cleared", new)])


def test_a_store_of_an_earlier_version_is_upgraded_and_tells_nothing_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'alerts.db'}"
    with closing(sqlite3.connect(tmp_path / "alerts.db")) as db:
        db.executescript(EARLIER)
    store = AlertStore(url, [Address("webhook", "info")])
    assert store.alarms()[0].title == "a is low"
    store.sync_findings([LOW], "check/", minutes(1))
    assert [message.message["event"] for message in store.outbox.lease(minutes(1))] == ["raised"], "the one that waited"
    store.sync_findings([over(LOW)], "check/", minutes(2))
    assert [message.message["event"] for message in store.outbox.lease(minutes(3))][-1] == "cleared"


def test_no_cause_sends_more_than_five_messages_in_any_hour_however_it_comes_and_goes(tmp_path: Path) -> None:
    """Causes of every pace, with calm half hours and silences: each hears of its end, and no end is told as new."""
    store, chance = AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}", [Address("webhook", "info")]), random.Random(3)
    paces = {f"check/{n}": chance.choice((0.05, 0.2, 0.5, 1.0)) for n in range(15)}
    wrong, minute = set[str](), 0.0
    for look in range(150):
        minute += chance.choice((1, 2, 3, 31)) if look % 20 == 0 else chance.choice((1, 2, 3))
        wrong ^= {cause for cause, pace in paces.items() if chance.random() < pace}
        if look % 25 == 0:
            store.silence("check/*1*", timedelta(minutes=chance.choice((5, 30))), "ada", now=minutes(minute))
        _look(store, paces, wrong, minute)
    wrong = {cause for cause in paces if chance.random() < 0.5}
    for later in range(1, 122, 30):
        _look(store, paces, wrong, minute + later)
    with closing(sqlite3.connect(tmp_path / "alerts.db")) as db:
        query = "SELECT posted_at, message FROM outbox ORDER BY id"
        posted = [(at, json.loads(message)["alarms"][0]) for at, message in db.execute(query)]
    assert all(alarm["state"].startswith("active") == (alarm["event"] != "cleared") for _, alarm in posted)
    for cause in paces:
        sent = [(at, alarm["event"]) for at, alarm in posted if alarm["cause"] == cause]
        for began, _ in sent:
            assert len([at for at, _ in sent if began <= at < began + 3_600]) <= 5, sent
        assert sent[-1][1] == "cleared" if cause not in wrong else sent[-1][1] in ("raised", "flapping")
    assert not any(alarm.flapping for alarm in store.alarms())


def _look(store: AlertStore, causes: Iterable[str], wrong: set[str], minute: float) -> None:
    store.sync_findings(
        [Finding(cause, state="failing" if cause in wrong else "passing") for cause in causes], None, minutes(minute)
    )
    store.tick(now=minutes(minute))


def test_a_message_that_another_process_sends_is_not_sent_along_with_a_new_one(tmp_path: Path) -> None:
    store = AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}", [Address("webhook", "info")])

    def leased(minute: float) -> list[int]:
        return [message.message["alarms"][0]["id"] for message in store.outbox.lease(minutes(minute))]

    store.sync_findings([LOW], None, NOW)
    assert leased(0) == [1]
    store.sync_findings([HIGH], None, minutes(0.5))
    assert leased(0.5) == [2]
    assert leased(1.1) == [1], "its lease is over: that process was killed"


def test_two_processes_may_report_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'alerts.db'}"
    causes = [f"check/{n}" for n in range(20)]

    def reports(store: AlertStore) -> list[int]:
        raised_counts = [store.sync_findings([Finding(c) for c in causes], "check/", NOW).raised for _ in range(5)]
        return [number for raised in raised_counts for number in raised]

    with ThreadPoolExecutor(4) as pool:
        raised = [
            number
            for raised_counts in pool.map(reports, [AlertStore(url) for _ in range(4)])
            for number in raised_counts
        ]
    assert sorted(raised) == list(range(1, 21)), "each cause was raised once"
    assert {alarm.count for alarm in AlertStore(url).alarms()} == {20}


def test_only_the_scope_that_was_looked_at_is_cleared(store: AlertStore) -> None:
    store.sync_findings([LOW], "check/", NOW)
    assert store.sync_findings([], "rule/", minutes(1)) == Changes([], [])
    assert store.sync_findings([HIGH], None, minutes(1)).cleared == [], "without a scope nothing is said of the others"
    assert store.sync_findings([HIGH], "check/", minutes(2)).cleared == [1], "it is no longer looked at"
    with pytest.raises(AlertError, match=r"'check/gold/a/low' is not of the scope 'rule/'"):
        store.sync_findings([LOW], "rule/", NOW)


def test_an_alarm_nobody_acknowledges_gets_graver(store: AlertStore) -> None:
    store.sync_findings([LOW, HIGH], "check/", NOW)
    store.acknowledge(2, "ada")
    half = timedelta(minutes=30)
    assert store.tick(half, minutes(29)) == []
    assert store.tick(half, minutes(30)) == [1]
    assert store.tick(half, minutes(45)) == []
    store.sync_findings([LOW], None, minutes(50))
    assert store.tick(half, minutes(60)) == [1], "a repeat is no news"
    assert store.alarm(1).severity == "critical"
    assert store.tick(half, minutes(600)) == [], "there is nothing above"


def test_people_assign_clear_and_silence(store: AlertStore) -> None:
    store.sync_findings([LOW], "check/", NOW)
    assert store.assign(1, "bo", "ada").assignee == "bo"
    assert store.clear(1, "bo", "mended").state == "cleared, unacknowledged"
    number = store.silence("check/gold/*", timedelta(hours=1), "bo", "works on it", NOW)
    assert [(alarm.id, alarm.silenced) for alarm in store.alarms(now=minutes(59))] == [(1, True)]
    assert not store.alarms(now=minutes(61))[0].silenced
    assert [silence["pattern"] for silence in store.silences(NOW)] == ["check/gold/*"]
    store.unsilence(number)
    assert store.silences(NOW) == []


def test_what_cannot_be_is_said(store: AlertStore) -> None:
    with pytest.raises(AlertError, match="no alarm 7; `city alerts list` shows them"):
        store.acknowledge(7, "ada")
    with pytest.raises(AlertError, match="no silence 7"):
        store.unsilence(7)
    with pytest.raises(AlertError, match="ended before it began"):
        store.silence("*", timedelta(0), "ada")
    with pytest.raises(AlertError, match="lasts 366 days at most"):
        store.silence("*", timedelta(days=367), "ada")
    with pytest.raises(AlertError, match="needs a pattern of causes"):
        store.silence(" ", timedelta(hours=1), "ada")
    store.sync_findings([LOW], "check/", NOW)
    with pytest.raises(AlertError, match="alarm 1 needs the name of a person"):
        store.assign(1, " ", "ada")


def test_a_silence_of_an_earlier_version_that_has_no_end_is_listed(store: AlertStore, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "alerts.db")) as db:
        db.execute("INSERT INTO silences (pattern, until) VALUES ('check/*', 1e15)")
        db.commit()
    assert [silence["until"].year for silence in store.silences(NOW)] == [9999]


@pytest.mark.parametrize(
    ("operator", "value", "now", "before", "held"),
    [
        ("greater", 5, 6.0, None, "failing"),
        ("greater", 5, 5.0, None, "passing"),
        ("less", 0.9, 0.5, None, "failing"),
        ("less", 0.9, None, None, "unknown"),
        ("less", 0.9, math.nan, None, "unknown"),
        ("equals", 0, 0.0, None, "failing"),
        ("absent", None, None, None, "failing"),
        ("absent", None, 1.0, None, "passing"),
        ("changed", None, 2.0, 1.0, "failing"),
        ("changed", None, 2.0, 2.0, "passing"),
        ("changed", None, 2.0, None, "unknown"),
    ],
)
def test_a_rule_holds_or_not_or_cannot_tell(
    operator: str, value: float | None, now: float | None, before: float | None, held: str
) -> None:
    rule = Rule(name="r", metric="m", operator=operator, value=value)  # type: ignore[arg-type]
    earlier = {} if before is None else {"m": before}
    (finding,) = rule.findings({"m": now} if now is not None else {}, earlier)
    assert finding.state == held


def test_a_rule_may_be_of_many_metrics() -> None:
    rule = Rule(name="low", metric="quality.*", operator="less", value=0.9, description="of 1")
    findings = rule.findings({"quality.a": 0.5, "quality.b": 1.0, "lag": 0.0, "quality.c": 0.1}, {})
    assert [(f.cause, f.title) for f in findings if f.state == "failing"] == [
        ("rule/low/quality.a", "quality.a is 0.5: less 0.9 (of 1)"),
        ("rule/low/quality.c", "quality.c is 0.1: less 0.9 (of 1)"),
    ]
    assert [f.cause for f in findings if f.state == "passing"] == ["rule/low/quality.b"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operator": "above"}, "no operator 'above'; known: greater"),
        ({"severity": "bad"}, "no severity 'bad'; known: info"),
        ({"value": None}, "greater needs a value"),
        ({"operator": "absent", "metric": "a*"}, "absent needs the whole name"),
    ],
)
def test_a_rule_that_cannot_hold_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(AlertError, match=f"rule 'r': {message}"):
        Rule(**({"name": "r", "metric": "m", "operator": "greater", "value": 1.0} | changes))  # type: ignore[arg-type]
