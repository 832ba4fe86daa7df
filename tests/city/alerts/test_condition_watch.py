"""Conditions on messages: when an alarm is raised, lasts and ends. Pure: times are those of the messages."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from city.alerts.condition_watch import ConditionWatch
from city.alerts.conditions import Baseline, Condition, Persistence
from city.alerts.model import Finding

BEGIN = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOT = Condition(
    domain="plant",
    kind="hot",
    description="An oven is too hot.",
    topic="ovens",
    key="oven",
    level=lambda message, usual: message["degrees"] / 100,
    raised_by=(Persistence(level=3, count=2, messages=2), Persistence(level=1, count=3, messages=4)),
    clear_below=0.8,
    calm_for=timedelta(seconds=20),
    forgotten_after=timedelta(minutes=5),
    severities=((1, "warning"), (5, "error")),
    title=lambda message: f"{message['oven']} has {message['degrees']} degrees",
    detail=lambda message: {"degrees": message["degrees"]},
)
SLOW = replace(
    HOT,
    kind="slow",
    level=lambda message, usual: None if usual is None else usual / message["degrees"] / 2,
    raised_by=(Persistence(level=1, count=2, messages=2),),
    baseline=Baseline(value=lambda message: message["degrees"], length=6, least=4, accepted_after=timedelta(minutes=2)),
)


def message(second: float, degrees: float, oven: str = "a") -> dict[str, Any]:
    return {"oven": oven, "degrees": degrees, "timestamp": (BEGIN + timedelta(seconds=second)).isoformat()}


def follow(watch: ConditionWatch, *messages: dict[str, Any], partition: int = 0, late: float = 0) -> list[Finding]:
    """All findings of messages that arrive as they are sent, time passing after each."""
    findings = []
    for sent in messages:
        arrived = datetime.fromisoformat(sent["timestamp"]).timestamp() + late
        finding = watch.take(sent, partition, arrived)
        findings += [finding] if finding else []
        findings += watch.pass_time()
    return findings


def every(seconds: float, degrees: Sequence[float], begin: float = 0, oven: str = "a") -> list[dict[str, Any]]:
    return [message(begin + seconds * number, value, oven) for number, value in enumerate(degrees)]


def changes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.cause, finding.state) for finding in findings]


RAISED, CLEARED = ("domain/plant/hot/a", "failing"), ("domain/plant/hot/a", "passing")


def test_what_persists_is_raised_once_and_cleared_after_it_was_calm() -> None:
    findings = follow(ConditionWatch(HOT), *every(5, [50, 120, 50, 120, 130, 90, 50, 50, 50, 50, 50, 50]))
    assert changes(findings) == [RAISED, CLEARED]
    first = findings[0]
    assert (first.severity, first.group, first.title) == ("warning", "plant/hot", "a has 130 degrees")
    assert first.labels == {"oven": "a", "type": "hot"}
    assert first.detail == {"degrees": 130}


def test_what_is_far_off_is_raised_at_once_and_what_is_short_never() -> None:
    assert changes(follow(ConditionWatch(HOT), *every(5, [50, 310, 320]))) == [RAISED]
    assert follow(ConditionWatch(HOT), *every(5, [50, 900, 50, 50, 900, 50, 120, 50, 50, 120])) == []


def test_it_does_not_flap_around_the_limit() -> None:
    around = [105, 110, 120] + [70, 110, 75, 60, 105, 85] * 20
    findings = follow(ConditionWatch(replace(HOT, repeat_every=timedelta(hours=1))), *every(5, around))
    assert changes(findings) == [RAISED]


def test_an_alarm_that_lasts_is_repeated_now_and_then_with_what_is_new() -> None:
    findings = follow(ConditionWatch(HOT), *every(5, [110 + n for n in range(41)]))
    assert changes(findings) == [RAISED] * 4
    assert [finding.detail["degrees"] for finding in findings if finding.detail] == [112, 124, 136, 148]


def test_a_rise_in_severity_is_told_at_once_and_a_fall_is_not() -> None:
    findings = follow(ConditionWatch(HOT), *every(5, [110, 110, 110, 510, 110, 110]))
    assert [finding.severity for finding in findings] == ["warning", "error"]
    later = follow(ConditionWatch(HOT), *every(5, [510, 510, *[110] * 15]))
    assert {finding.severity for finding in later} == {"error"}


def test_each_key_has_an_alarm_of_its_own() -> None:
    watch = ConditionWatch(HOT)
    both = [m for pair in zip(every(5, [400] * 4), every(5, [400] * 4, oven="b"), strict=True) for m in pair]
    assert changes(follow(watch, *both)) == [RAISED, ("domain/plant/hot/b", "failing")]
    assert watch.open == ["a", "b"]


def test_messages_that_come_late_or_again_change_nothing_that_is_over() -> None:
    wrong, calm = every(5, [120, 120, 120]), every(5, [50] * 8, begin=15)
    shuffled = [wrong[2], wrong[0], wrong[1]]
    watch = ConditionWatch(HOT)
    assert changes(follow(watch, *shuffled, late=30)) == [RAISED]
    assert changes(follow(watch, *calm)) == [CLEARED]
    assert follow(watch, *wrong, *wrong, late=100) == []  # the stream repeats what a crash left unpublished
    assert follow(ConditionWatch(HOT), *[message(0, 500)] * 5) == []  # the same reading is one, however often it comes


def test_a_later_message_of_the_same_time_replaces_the_one_before() -> None:
    """A window is told of again and again while it is open."""
    watch = ConditionWatch(HOT)
    assert follow(watch, message(0, 400), message(0, 50), message(120, 400), message(120, 60)) == []


def test_nothing_ends_while_the_stream_is_silent_and_what_is_not_heard_of_ends_with_the_others_time() -> None:
    watch = ConditionWatch(HOT)
    follow(watch, *every(5, [400, 400]))
    assert watch.pass_time() == []
    assert follow(watch, message(3600, 50, "b"), partition=1) == []  # says nothing about the first partition
    assert follow(watch, message(300, 50, "b")) == []
    assert changes(follow(watch, message(305, 50, "b"))) == [CLEARED]
    follow(watch, message(7200, 50, "b"))
    assert watch.state["tracks"] == {}


def test_a_clock_that_is_ahead_keeps_no_alarm_open() -> None:
    watch, arrived = ConditionWatch(HOT), BEGIN.timestamp()
    ahead = {"oven": "a", "degrees": 400, "timestamp": "9999-01-01T00:00:00Z"}
    assert watch.take(ahead, 0, arrived) is None
    assert changes([watch.take(ahead, 0, arrived + 1)]) == [RAISED]  # type: ignore[list-item]
    assert changes(follow(watch, *every(5, [50] * 6, begin=5))) == [CLEARED]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"oven": 5, "degrees": 1, "timestamp": "2026-05-04"},
        {"oven": "", "degrees": 1, "timestamp": "2026-05-04"},
        {"oven": "a" * 201, "degrees": 1, "timestamp": "2026-05-04"},
        {"oven": "a\0", "degrees": 1, "timestamp": "2026-05-04"},
        {"oven": "a", "degrees": "hot", "timestamp": "2026-05-04"},
        {"oven": "a", "degrees": None, "timestamp": "2026-05-04"},
        {"oven": "a", "degrees": 1, "timestamp": 5},
        {"oven": "a", "degrees": 1},
    ],
)
def test_a_message_that_is_not_understood_leaves_the_watch_as_it_was(wrong: dict[str, Any]) -> None:
    watch = ConditionWatch(HOT)
    follow(watch, message(0, 400))
    before = json.dumps(watch.state)
    with pytest.raises((ValueError, TypeError, KeyError)):
        watch.take(wrong, 0, BEGIN.timestamp() + 5)
    assert json.dumps(watch.state) == before
    assert changes(follow(watch, message(5, 400))) == [RAISED]


def test_what_is_usual_stands_still_while_something_is_wrong_until_that_is_the_usual() -> None:
    watch = ConditionWatch(SLOW)
    assert follow(watch, *every(10, [10, 11, 10, 9])) == []
    cause = "domain/plant/slow/a"
    findings = follow(watch, *every(10, [10, *[4] * 8], begin=40))
    assert set(changes(findings)) == {(cause, "failing")}
    assert changes(follow(watch, message(140, 10), message(150, 10))) == [(cause, "passing")]
    assert changes(follow(watch, message(160, 4), message(170, 4))) == [(cause, "failing")]  # 10 still is the usual
    lasting = follow(watch, *every(10, [4] * 40, begin=180))
    assert changes(lasting)[-1] == (cause, "passing")
    assert follow(watch, *every(10, [4] * 10, begin=590)) == []


def test_the_state_is_bounded_and_open_alarms_are_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Condition, "most_keys", 3)
    watch = ConditionWatch(HOT)
    for number in range(10):
        follow(watch, message(number, 400, f"o{number}"))
    assert len(watch.state["tracks"]) == 3
    assert not watch.overflowed
    for oven in ("o7", "o8", "o9"):
        follow(watch, message(20, 400, oven))
    assert watch.open == ["o7", "o8", "o9"]
    assert follow(watch, message(30, 400, "p"), message(31, 400, "p")) == []
    assert watch.overflowed
    follow(watch, message(400, 50, "q"))
    assert not watch.overflowed
    assert watch.open == []


def test_calm_keys_are_not_kept() -> None:
    watch = ConditionWatch(HOT)
    follow(watch, *every(5, [50] * 20), *every(5, [50, 120, *[50] * 20], oven="b"))
    assert watch.state["tracks"] == {}
    follow(watch, *every(10, [400, 400, *[50] * 40], begin=200))
    assert watch.state["tracks"] == {}


steps = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(-12, 40), st.sampled_from([40, 79, 90, 120, 310, 600])), max_size=60
)


@given(steps, st.integers(0, 60))
def test_a_restart_at_any_message_changes_no_finding(drawn: list[tuple[str, int, int]], cut: int) -> None:
    second, sent = 0, []
    for oven, step, degrees in drawn:
        second += step
        sent.append(message(second, degrees, oven))
    whole = follow(ConditionWatch(HOT), *sent)
    watch = ConditionWatch(HOT)
    before = follow(watch, *sent[:cut])
    after = follow(ConditionWatch(HOT, json.loads(json.dumps(watch.state))), *sent[cut:])
    assert before + after == whole
    for cause in {finding.cause for finding in whole}:
        states = [finding.state for finding in whole if finding.cause == cause]
        assert states[0] == "failing"
        assert all(pair != ("passing", "passing") for pair in pairwise(states))
