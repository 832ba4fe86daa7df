"""How the benchmark of domain alarms counts: what happened, what was told, and what of it is true."""

from datetime import UTC, datetime, timedelta

import polars as pl

from benchmarks.alarms import Alarm, Event, fault_events, fraud_events, judged, summary

BEGIN = datetime(2026, 5, 4, 6, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return BEGIN + timedelta(minutes=minutes)


def alarm(key: str, begin: float, end: float | None, severity: str = "warning") -> Alarm:
    return Alarm(key, at(begin), None if end is None else at(end), severity, "warning")  # type: ignore[arg-type]


def test_alarms_are_true_where_something_was_wrong_and_false_elsewhere() -> None:
    events = [Event("a", at(10), at(20)), Event("a", at(60), at(70)), Event("b", at(10), at(20), is_wanted=False)]
    raised = [
        alarm("a", 10.5, 12, "error"),
        alarm("a", 14, 16),  # the same fault once more
        alarm("a", 30, 31),
        alarm("b", 19, None),
        alarm("c", 15, 16),
    ]
    judgement = judged(raised, events)
    assert (judgement.events, judgement.alarms, judgement.true, judgement.missed, judgement.graver) == (2, 5, 3, 1, 1)
    assert judgement.seconds == (30.0,)
    assert judged(raised, events, after=timedelta(minutes=10)).true == 4
    assert judged(raised, events, before=timedelta(minutes=29)).seconds == (30.0, -1800.0)
    assert judged([], []).alarms == 0


def test_the_kinds_are_summed_over_all_seeds() -> None:
    one = judged([alarm("a", 11, 12)], [Event("a", at(10), at(20)), Event("b", at(10), at(20))])
    figures = summary([one, judged([alarm("a", 11, 12)], [])], hours=8)
    assert figures == {
        "hours": 8,
        "events": 2,
        "alarms": 2,
        "graver_alarms": 0,
        "true": 1,
        "false": 1,
        "missed": 1,
        "seconds_p50": 60.0,
        "seconds_p90": 60.0,
    }
    assert summary([], hours=8)["seconds_p50"] is None


def test_each_fault_is_an_event_and_wear_before_a_failure_is_no_false_alarm() -> None:
    faults = [None, "leak", "leak", None, "leak", None]
    rows = pl.DataFrame({"timestamp": [at(n) for n in range(6)], "machine_id": "pump_001", "fault": faults})
    log = pl.DataFrame({"timestamp": [at(0), at(60)], "machine_id": "pump_001", "kind": ["commissioned", "failure"]})
    first, second, worn = sorted(fault_events(rows, log), key=lambda event: event.begin)
    assert [(e.begin, e.end, e.is_wanted) for e in (first, second)] == [(at(1), at(2), True), (at(4), at(4), True)]
    assert (worn.begin, worn.end, worn.is_wanted) == (at(48), at(60), False)


def test_payments_of_one_fraud_are_one_event() -> None:
    paid = pl.DataFrame(
        {
            "card": ["a", "a", "b", "a", "a", "b"],
            "timestamp": [at(n) for n in (0, 1, 2, 3, 30, 31)],
            "pattern": ["takeover", "takeover", None, "takeover", "stolen_card", "takeover"],
        }
    )
    periods = sorted((e.key, e.begin, e.end) for e in fraud_events(paid))
    assert periods == [("a", at(0), at(3)), ("a", at(30), at(30)), ("b", at(31), at(31))]
