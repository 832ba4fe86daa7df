"""What is wrong with the platform itself, look by look."""

import json
from pathlib import Path
from typing import Any

import pytest

from city.alerts.system import Parts, disk, metrics


def part(
    state: str = "running", error: str | None = None, restarts: int = 0, reason: str | None = None
) -> dict[str, Any]:
    return {"state": state, "errors": [error] if error else [], "exit": reason, "restarts": restarts}


def states(parts: Parts, at: float, unavailable: dict[str, str | None] | None = None, **of: Any) -> dict[str, str]:
    return {f.cause.removeprefix("system/"): f.state for f in parts.findings(of, unavailable or {}, at)}


def test_a_part_that_starts_is_no_news_and_one_that_does_not_come_is() -> None:
    parts = Parts()
    assert states(parts, 0, kafka=part("starting")) == {"kafka": "unknown"}
    assert states(parts, 100, {"kafka": "nothing listens"}, kafka=part("starting")) == {"kafka": "unknown"}
    assert states(parts, 181, kafka=part("starting")) == {"kafka": "failing"}
    assert states(parts, 190, {"kafka": None}, kafka=part()) == {"kafka": "passing"}


def test_a_part_that_was_killed_is_an_alarm_however_soon_it_is_back() -> None:
    parts = Parts()
    assert states(parts, 0, questdb=part()) == {"questdb": "passing"}
    (finding,) = parts.findings({"questdb": part(restarts=1)}, {}, 2)
    assert (finding.state, finding.severity, finding.title) == (
        "failing",
        "error",
        "questdb ended and was started again",
    )
    assert states(parts, 31, questdb=part(restarts=1)) == {"questdb": "failing"}
    assert states(parts, 33, questdb=part(restarts=1)) == {"questdb": "passing"}


def test_a_part_that_was_killed_is_called_down_until_it_is_back() -> None:
    parts, answers = Parts(), {"questdb": "no answer"}
    states(parts, 0, {"questdb": None}, questdb=part())
    (down,) = parts.findings({"questdb": part("starting", "killed by SIGKILL", restarts=1)}, answers, 2)
    (silent,) = parts.findings({"questdb": part(restarts=1)}, answers, 4)
    (back,) = parts.findings({"questdb": part(error="killed by SIGKILL", restarts=1)}, {"questdb": None}, 6)
    assert (down.title, silent.title, back.title) == (
        "questdb is down: it ended, and is being started again: no answer",
        "questdb is down: it ended, and is being started again: no answer",
        "questdb ended and was started again: killed by SIGKILL",
    )


def test_the_alarm_of_a_killed_part_says_why_it_ended_and_ends_after_half_a_minute() -> None:
    """Though the supervisor keeps the reason for a minute, for people who look at the part's state."""
    parts, killed = Parts(), "killed by SIGKILL"
    states(parts, 0, questdb=part())
    down = {"questdb": "no answer from 127.0.0.1:9000"}
    (finding,) = parts.findings({"questdb": part("restarting", restarts=1, reason=killed)}, down, 2)
    assert finding.title == "questdb is down: it ended, and is being started again: killed by SIGKILL"
    back = part(restarts=1, reason=killed)
    (finding,) = parts.findings({"questdb": back}, {"questdb": None}, 20)
    assert (finding.severity, finding.title) == ("error", "questdb ended and was started again: killed by SIGKILL")
    assert states(parts, 33, {"questdb": None}, questdb=back) == {"questdb": "passing"}


def test_a_part_that_ends_three_times_within_ten_minutes_is_in_a_crash_loop() -> None:
    parts = Parts()
    states(parts, 0, stream=part())
    for restarts, at in ((1, 10), (2, 60)):
        assert states(parts, at, stream=part("restarting", restarts=restarts)) == {"stream": "failing"}
        assert states(parts, at + 31, stream=part(restarts=restarts)) == {"stream": "passing"}
    (finding,) = parts.findings({"stream": part("restarting", restarts=3, reason="no memory")}, {}, 100)
    assert finding.severity == "error"
    assert finding.title == "stream is in a crash loop, ended 3 times within 10 minutes: no memory"
    for at, state in ((200, "failing"), (360, "failing"), (520, "failing"), (611, "passing")):
        assert states(parts, at, stream=part(restarts=3)) == {"stream": state}


SILENT = "no progress for 24 s: was 200 events/s; its peers go on"
REFUSED = "Kafka: 127.0.0.1:9092/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: Connection refused"


def stalled(error: str) -> dict[str, Any]:
    return part(error=error) | {"stalled": True}


def test_what_waits_for_a_server_that_is_away_is_no_alarm_of_its_own() -> None:
    """As when Kafka was killed: six parts were told of for it."""
    parts = Parts()
    idle = {
        "mqtt-bridge": stalled(SILENT),
        "simulator-traffic": stalled(f"{REFUSED}; {SILENT}"),
        "stream": stalled(
            f"city.sensors: Kafka at 127.0.0.1:9092 is unavailable: no broker is connected; payments: {SILENT}"
        ),
        "server": part(error="live: no progress for 70 s"),
    }
    states(parts, 0, kafka=part(), **dict.fromkeys(idle, part()))
    for at in (2, 12, 42):
        findings = states(parts, at, {"kafka": "nothing listens"}, kafka=part(), **idle)
        assert {findings[name] for name in idle} == {"unknown"}
    assert findings["kafka"] == "failing"
    back = {"kafka": part(), "server": part(), "simulator-traffic": part()}
    for at, left in ((50, "unknown"), (109, "unknown"), (111, "failing")):  # Kafka is well again from the first on
        findings = states(parts, at, {"kafka": None}, **idle | back)
        assert findings == dict.fromkeys(back, "passing") | {"mqtt-bridge": left, "stream": "unknown"}
    for at in (115, 180):  # the bridge goes on, and so may what it feeds
        findings = states(parts, at, {"kafka": None}, **idle | back | {"mqtt-bridge": part()})
    assert findings["stream"] == "failing"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("stream", "sensors: ForeignTable: bronze/sensors was made by somebody else"),
        ("mqtt-bridge", "no progress for 24 s: its process 7 lives and does not report"),
        ("dagster-daemon", "no heartbeat for 150 s"),
        ("simulators", "questdb: away"),
    ],
)
def test_what_a_server_that_is_away_does_not_explain_is_an_alarm(name: str, error: str) -> None:
    parts = Parts()
    for at in (0, 2, 30):
        findings = states(parts, at, {"kafka": "away" if at else None}, **{name: part(error=error if at else None)})
    assert findings[name] == "failing"


def test_a_server_that_is_slow_now_and_then_explains_nothing() -> None:
    parts = Parts()
    for at in range(0, 60, 2):
        slow = {"questdb": "no answer" if at % 10 == 4 else None}
        findings = states(parts, at, slow, questdb=part(), stream=stalled(SILENT) if at else part())
        if at % 10 == 0:
            assert findings["stream"] == ("failing" if at > 20 else "unknown" if at else "passing")


def test_a_source_that_stops_is_one_alarm_and_what_it_feeds_is_none() -> None:
    parts = Parts()
    quiet = stalled("no progress for 40 s: its process 7 lives and does not report")
    stream = stalled(f"city.sensors: {SILENT}")
    states(parts, 0, **{"mqtt-bridge": part(), "stream": part()})
    for at in (2, 30):
        findings = states(parts, at, **{"mqtt-bridge": quiet, "stream": stream})
    assert findings == {"mqtt-bridge": "failing", "stream": "unknown"}
    for at in (32, 91):
        assert states(parts, at, **{"mqtt-bridge": part(), "stream": stream})["stream"] == "unknown"
    assert states(parts, 93, **{"mqtt-bridge": part(), "stream": stream})["stream"] == "failing"


def test_loops_of_a_process_that_does_not_run_are_no_alarms_of_their_own() -> None:
    parts = Parts()
    loop = part() | {"within": "simulators"}
    states(parts, 0, **{"simulators": part(), "simulator-traffic": loop})
    ways: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (part("restarting"), part("restarting")),
        (stalled("no progress for 90 s: its process 7 lives and does not report"), stalled("no progress for 90 s")),
    ]
    for begin, (process, state) in zip((10, 500), ways, strict=True):
        stopped = {"simulators": process, "simulator-traffic": loop | state}
        for at in (begin, begin + 90):
            findings = states(parts, at, **stopped)
        assert findings == {"simulators": "failing", "simulator-traffic": "unknown"}
        findings = states(parts, begin + 95, **{"simulators": part(), "simulator-traffic": loop})
        assert set(findings.values()) == {"passing"}
    broken = part(error="simulator-traffic: KeyError")
    for at in (1000, 1030):
        findings = states(
            parts, at, **{"simulators": broken, "simulator-traffic": loop | stalled("no progress for 90 s")}
        )
    assert findings == {"simulators": "failing", "simulator-traffic": "failing"}, "its process goes on without it"


def test_a_stream_that_ended_with_the_code_server_is_no_alarm_of_its_own() -> None:
    parts, code = Parts(), "dagster-code"

    def look(at: float, state: str = "running", restarts: int = 0, ended: int = 0) -> tuple[str, str]:
        stream = part("restarting" if state != "running" else state, restarts=ended) | {"within": code}
        findings = states(parts, at, **{code: part(state, restarts=restarts), "stream": stream})
        return findings[code], findings["stream"]

    assert look(0) == ("passing", "passing")
    assert look(2, ended=1) == ("passing", "unknown"), "the supervisor is still at it"
    assert look(4, "restarting", restarts=1, ended=1) == ("failing", "unknown")
    assert look(20, restarts=1, ended=1) == ("failing", "passing")
    assert look(40, restarts=1, ended=1) == ("passing", "passing")
    assert look(90, restarts=1, ended=2) == ("passing", "unknown")
    assert look(94, restarts=1, ended=2) == ("passing", "failing"), "this time it ended by itself"
    assert look(121, restarts=1, ended=2) == ("passing", "passing")
    assert look(150, restarts=1, ended=3)[1] == "unknown"
    assert look(180, restarts=1, ended=3)[1] == "failing", "also where nobody has looked for half a minute"
    assert look(210, restarts=1, ended=3)[1] == "passing"


def test_of_restarts_that_nobody_saw_no_crash_loop_is_made() -> None:
    parts = Parts()
    states(parts, 0, kafka=part())
    (finding,) = parts.findings({"kafka": part(restarts=5)}, {}, 7200)
    assert finding.title == "kafka ended and was started again"


def test_what_does_not_answer_is_an_alarm_and_an_error_that_passes_is_none() -> None:
    parts = Parts()
    states(parts, 0, questdb=part(), stream=part())
    assert states(parts, 2, {"questdb": "no answer"}, questdb=part(), stream=part(error="away")) == {
        "questdb": "unknown",
        "stream": "unknown",
    }
    findings = parts.findings({"questdb": part(), "stream": part(error="away")}, {"questdb": "no answer"}, 8)
    assert [(f.state, f.severity, f.title) for f in findings if f.state == "failing"] == [
        ("failing", "error", "questdb: no answer")
    ]
    assert states(parts, 9, {"questdb": None}, questdb=part(), stream=part()) == {
        "questdb": "passing",
        "stream": "passing",
    }
    states(parts, 10, {"questdb": None}, questdb=part(), stream=part(error="away"))
    (stream,) = [f for f in parts.findings({"stream": part(error="away")}, {}, 31) if f.cause == "system/stream"]
    assert (stream.state, stream.severity, stream.title) == ("failing", "warning", "stream: away")


def test_what_stands_still_is_reported_with_what_it_says_of_itself() -> None:
    parts = Parts()
    states(parts, 0, bridge=part())
    quiet = part("running", "no progress for 20 s: its process 7 lives and does not report") | {"stalled": True}
    states(parts, 20, bridge=quiet)
    (finding,) = parts.findings({"bridge": quiet}, {}, 41)
    assert "no progress for 20 s" in finding.title
    assert finding.severity == "error"
    assert metrics([finding]) == {"system.failing.bridge": 1.0}


def test_who_takes_over_goes_on_from_what_others_saw() -> None:
    before = Parts()
    states(before, 0, server=part(), bridge=part())
    after = Parts(json.loads(json.dumps(before.state)))
    assert states(after, 12, server=part(restarts=1), bridge=part()) == {"server": "failing", "bridge": "passing"}
    old = Parts(json.loads(json.dumps(after.state)))
    assert states(old, 50, server=part(restarts=1), bridge=part()) == {"server": "passing", "bridge": "passing"}


def test_after_a_time_without_looks_what_is_wrong_is_timed_anew() -> None:
    parts = Parts()
    states(parts, 0, bridge=part())
    states(parts, 2, bridge=part(error="away"))
    for at in (7200, 0):  # hours later, and a clock that was set back
        assert states(parts, at, bridge=part(error="away")) == {"bridge": "unknown"}
        assert states(parts, at + 21, bridge=part(error="away")) == {"bridge": "failing"}


def test_a_restart_is_not_told_again_when_the_clock_is_set_back() -> None:
    parts = Parts()
    states(parts, 7200, kafka=part())
    assert states(parts, 7202, kafka=part(restarts=1)) == {"kafka": "failing"}
    assert states(parts, 7240, kafka=part(restarts=1)) == {"kafka": "passing"}
    assert states(parts, 0, kafka=part(restarts=1)) == {"kafka": "passing"}


def test_a_restart_that_nobody_saw_is_told_when_somebody_looks() -> None:
    parts = Parts()
    states(parts, 0, kafka=part())
    assert states(parts, 7200, kafka=part(restarts=1)) == {"kafka": "failing"}
    assert states(parts, 7231, kafka=part(restarts=1)) == {"kafka": "passing"}


def test_the_parts_of_another_start_are_new() -> None:
    parts = Parts()
    parts.findings({"kafka": part(restarts=2)}, {}, 0, [7, 1.0])
    (finding,) = parts.findings({"kafka": part("starting")}, {"kafka": "nothing listens"}, 90, [8, 2.0])
    assert finding.state == "unknown"
    (finding,) = parts.findings({"kafka": part(restarts=1)}, {}, 92, [8, 2.0])
    assert finding.state == "failing"


def test_who_asks_nothing_cannot_tell_that_a_server_answers_again() -> None:
    parts = Parts()
    for at in (0, 10):
        (finding,) = parts.findings({"questdb": part()}, {"questdb": "no answer"}, at)
    parts = Parts({**parts.state})
    (finding,) = parts.findings({"questdb": part()}, {"questdb": None}, 12)
    assert finding.state == "passing"
    (finding,) = parts.findings({"questdb": part()}, {"questdb": "no answer"}, 14)
    (finding,) = parts.findings({"questdb": part()}, None, 40)
    assert finding.state == "unknown", "its process runs, and nobody asked"
    assert [f.cause for f in parts.findings({}, None, 60)] == []
    (finding,) = parts.findings({"questdb": part()}, None, 80)
    assert finding.state == "unknown"
    for at, state in ((82, "failing"), (120, "passing")):
        (finding,) = parts.findings({"questdb": part(restarts=1)}, None, at)
        assert finding.state == state, "it is another process"


def test_a_state_of_another_version_is_begun_anew() -> None:
    parts = Parts({"at": 0, "platform": None, "seen": {"kafka": {"unknown": 1}}})
    assert states(parts, 2, kafka=part()) == {"kafka": "passing"}


@pytest.mark.parametrize(("least", "state", "severity"), [(1e-9, "passing", "warning"), (1e9, "failing", "error")])
def test_a_disk_that_is_nearly_full_is_told(tmp_path: Path, least: float, state: str, severity: str) -> None:
    findings, measured = disk(tmp_path, least)
    assert (findings.state, findings.severity) == (state, severity)
    assert 0 < (measured["system.disk_free_share"] or 0) < 1
