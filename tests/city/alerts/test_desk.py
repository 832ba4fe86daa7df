"""Alarms and their states, kept in a real database."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from city.alerts.desk import Desk
from city.alerts.model import AlertError, Finding, Rule

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
LOW = Finding("check/gold/a/low", "warning", "a is low", "gold/a", {"rows": 3})
HIGH = Finding("check/gold/b/high", "error", "b is high", "gold/b")


def minutes(count: float) -> datetime:
    return NOW + timedelta(minutes=count)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(f"sqlite:///{tmp_path / 'alerts.db'}")


def test_a_cause_is_one_alarm_that_counts_its_repeats(desk: Desk, tmp_path: Path) -> None:
    assert desk.report([LOW], "check/", NOW) == ([1], [])
    for minute in range(1, 4):
        assert desk.report([LOW], "check/", minutes(minute)) == ([], [])
    (alarm,) = Desk(f"sqlite:///{tmp_path / 'alerts.db'}").alarms()
    assert (alarm.count, alarm.first_at, alarm.last_at, alarm.detail) == (4, NOW, minutes(3), {"rows": 3})
    assert alarm.state == "active, unacknowledged"


def test_an_alarm_goes_through_its_four_states(desk: Desk) -> None:
    desk.report([LOW, HIGH], "check/", NOW)
    assert desk.acknowledge(1, "ada").state == "active, acknowledged"
    assert desk.report([], "check/", minutes(1)) == ([], [1, 2])
    assert desk.alarm(1).state == "cleared, acknowledged"
    assert desk.alarm(2).state == "cleared, unacknowledged"
    assert [alarm.id for alarm in desk.alarms()] == [2], "one is closed"
    assert desk.report([LOW, HIGH], "check/", minutes(2)) == ([3, 2], []), "a closed alarm's cause is a new alarm"
    assert desk.alarm(2).state == "active, unacknowledged"
    assert [entry["event"] for entry in desk.history(2)] == ["raised", "cleared", "raised again"]
    assert [entry["by"] for entry in desk.history(1)] == [None, "ada", None]


def test_only_the_scope_that_was_looked_at_is_cleared(desk: Desk) -> None:
    desk.report([LOW], "check/", NOW)
    desk.report([], "rule/", minutes(1))
    assert desk.alarm(1).active
    with pytest.raises(AlertError, match=r"'check/gold/a/low' is not of the scope 'rule/'"):
        desk.report([LOW], "rule/", NOW)


def test_an_alarm_nobody_acknowledges_gets_graver(desk: Desk) -> None:
    desk.report([LOW, HIGH], "check/", NOW)
    desk.acknowledge(2, "ada")
    half = timedelta(minutes=30)
    assert desk.escalate(half, minutes(29)) == []
    assert desk.escalate(half, minutes(30)) == [1]
    assert desk.escalate(half, minutes(45)) == []
    assert desk.escalate(half, minutes(60)) == [1]
    assert desk.alarm(1).severity == "critical"
    assert desk.escalate(half, minutes(600)) == [], "there is nothing above"


def test_people_assign_clear_and_silence(desk: Desk) -> None:
    desk.report([LOW], "check/", NOW)
    assert desk.assign(1, "bo", "ada").assignee == "bo"
    assert desk.clear(1, "bo", "mended").state == "cleared, unacknowledged"
    number = desk.silence("check/gold/*", timedelta(hours=1), "bo", "works on it", NOW)
    assert [(alarm.id, alarm.silenced) for alarm in desk.alarms(now=minutes(59))] == [(1, True)]
    assert not desk.alarms(now=minutes(61))[0].silenced
    desk.unsilence(number)
    assert desk.silences(NOW) == []


def test_what_cannot_be_is_said(desk: Desk) -> None:
    with pytest.raises(AlertError, match="no alarm 7; `city alerts list` shows them"):
        desk.acknowledge(7, "ada")
    with pytest.raises(AlertError, match="no silence 7"):
        desk.unsilence(7)
    with pytest.raises(AlertError, match="ended before it began"):
        desk.silence("*", timedelta(0), "ada")


@pytest.mark.parametrize(
    ("operator", "value", "now", "before", "held"),
    [
        ("greater", 5, 6.0, None, True),
        ("greater", 5, 5.0, None, False),
        ("less", 0.9, 0.5, None, True),
        ("less", 0.9, None, None, False),
        ("equals", 0, 0.0, None, True),
        ("absent", None, None, None, True),
        ("absent", None, 1.0, None, False),
        ("changed", None, 2.0, 1.0, True),
        ("changed", None, 2.0, 2.0, False),
        ("changed", None, 2.0, None, False),
    ],
)
def test_a_rule_holds_or_not(
    operator: str, value: float | None, now: float | None, before: float | None, held: bool
) -> None:
    rule = Rule(name="r", metric="m", operator=operator, value=value)  # type: ignore[arg-type]
    earlier = {} if before is None else {"m": before}
    assert bool(rule.findings({"m": now} if now is not None else {}, earlier)) == held


def test_a_rule_may_be_of_many_metrics() -> None:
    rule = Rule(name="low", metric="quality.*", operator="less", value=0.9, means="of 1")
    found = rule.findings({"quality.a": 0.5, "quality.b": 1.0, "lag": 0.0, "quality.c": 0.1}, {})
    assert [(f.cause, f.title) for f in found] == [
        ("rule/low/quality.a", "quality.a is 0.5: less 0.9 (of 1)"),
        ("rule/low/quality.c", "quality.c is 0.1: less 0.9 (of 1)"),
    ]


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
