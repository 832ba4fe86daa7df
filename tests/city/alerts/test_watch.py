"""The rules in force, who judges, and what metrics come from where."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from city.alerts.declared import declared_metrics, is_declared
from city.alerts.model import AlertError, Finding
from city.alerts.rules import DEFAULT, rules, stream_metrics
from city.alerts.store import AlertStore, alert_store
from city.alerts.supervision import CAUSE
from city.alerts.system import disk, metrics
from city.alerts.watch import PlatformWatch, active, share, shared
from city.features.freshness import FeatureFreshness
from city.models.model import models
from city.serving.outcome_scores import OutcomeScores
from city.settings import Settings
from city.stack.part import Spec
from city.stack.servers import python
from city.stack.specs import specs
from city.stack.state import STREAM, SUPERVISOR, identity, read_json
from city.stack.status import parts
from city.stack.supervisor import Supervisor
from city.streaming.job import StreamJob
from city_assets.environment.contract import SENSORS
from tests.live import until

TOPIC = SENSORS.topic
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def alive(config: Settings, at: datetime = NOW, **stream: float) -> None:
    entry = {"topic": TOPIC, "lag": 0, "p95_ms": 200.0, "events_per_second": 5.0, "quarantined": 0, "rows": 9} | stream
    config.run.mkdir(parents=True, exist_ok=True)
    report = {"at": at.timestamp(), "ended": False, "failure": None, "streams": [entry]}
    (config.run / "stream.json").write_text(json.dumps(report))


@pytest.fixture
def kept(config: Settings) -> AlertStore:
    config.home.mkdir(parents=True, exist_ok=True)
    alive(config)
    return alert_store(config)


def ruled(config: Settings, *rules: str) -> Settings:
    """With rules of a user's own."""
    (file := config.home / "alerts.toml").write_text("".join(rules))
    return config.model_copy(update={"alert_rules": file})


def causes(kept: AlertStore) -> dict[str, str]:
    return {a.cause: a.severity for a in kept.alarms() if a.active and a.cause.startswith("rule/")}


def test_rules_watch_the_stream_and_the_scores(config: Settings, kept: AlertStore) -> None:
    config = ruled(config, SILENT, MORE)
    watch = PlatformWatch(config, kept, began=NOW)
    alive(config, lag=200_000)
    share(kept, "quality", {"quality.sensors": 0.5})
    watch.look(NOW)
    assert causes(kept) == {f"rule/behind/stream.lag.{TOPIC}": "warning", "rule/low/quality.sensors": "error"}
    share(kept, "quality", {"quality.sensors": None})
    alive(config)
    watch.look(NOW)
    assert causes(kept) == {"rule/low/quality.sensors": "error"}, "what is not known clears nothing"
    share(kept, "quality", {"quality.sensors": 1.0})
    watch.look(NOW)
    assert causes(kept) == {}
    watch.look(NOW + timedelta(minutes=2))
    assert causes(kept) == {}, "its last word is two minutes old, but everything is still starting"
    watch.look(NOW + timedelta(minutes=3))
    assert causes(kept) == {"rule/silent/stream.alive": "error"}


def mute(config: Settings, name: str, content: dict[str, Any]) -> None:
    """A process that lives, and has not written its file for a while."""
    config.run.mkdir(parents=True, exist_ok=True)
    (config.run / f"{name}.json").write_text(json.dumps({**identity(), "at": time.time() - 90, **content}))


def pace(last: float) -> list[tuple[float, int]]:
    """Of a source with 200 events a second, up to a time."""
    return [(last - 5 * n, 1_000_000 - 1_000 * n) for n in range(10, -1, -1)]


def test_a_stream_that_falls_silent_is_one_alarm(config: Settings, kept: AlertStore) -> None:
    now = datetime.now(UTC)
    mute(config, "stream", {"at": now.timestamp() - 90, "ended": False, "failure": None, "streams": []})
    watch = PlatformWatch(config, kept, began=NOW)
    for seconds in range(0, 300, 30):
        watch.look(now + timedelta(seconds=seconds))
    (alarm,) = [alarm for alarm in kept.alarms() if alarm.cause != "system/disk"]
    assert (alarm.cause, alarm.severity) == ("system/stream", "error")
    assert "no progress for " in alarm.title  # 90 s, and what the test has taken since


class Streams:
    """Real processes that stream nothing, each told of by what a StreamJob writes."""

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._job = StreamJob([], config)

    def start(self) -> None:
        """The next one, which reads the report of the one before."""
        self._process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self._job = StreamJob([], self._config)
        self._job.run()
        self._report(ended=False)

    def end(self) -> None:
        """As after its day, or where somebody asks it to."""
        self.kill()
        self._report(ended=True)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _report(self, ended: bool) -> None:
        assert self._process is not None
        report = read_json(self._config, STREAM) or {}
        created = psutil.Process(self._process.pid).create_time() if not ended else report["created"]
        report |= {"pid": self._process.pid, "created": created, "ended": ended, "at": time.time()}
        (self._config.run / STREAM).write_text(json.dumps(report))


@pytest.fixture
def streams(config: Settings) -> Iterator[Streams]:
    made = Streams(config)
    made.start()
    yield made
    made.kill()


def test_a_stream_that_was_killed_is_an_alarm_and_one_that_ends_by_itself_is_none(
    config: Settings, kept: AlertStore, streams: Streams
) -> None:
    now = datetime.now(UTC)
    (config.run / SUPERVISOR).write_text(json.dumps(identity() | {"parts": {}}))
    watch = PlatformWatch(config, kept, began=NOW)

    def look(seconds: float) -> str | None:
        """The title of the stream's alarm, if it is active."""
        watch.look(now + timedelta(seconds=seconds))
        return next((a.title for a in kept.alarms() if a.active and a.cause == "system/stream"), None)

    assert look(0) is None
    streams.end()
    assert look(5) is None
    streams.start()
    assert look(40) is None, "its day was over"
    streams.kill()
    look(50)
    assert "stream is down: it ended, and is being started again: its process" in str(look(54))
    streams.start()
    assert look(60) == "stream ended and was started again"
    assert look(81) is None
    for seconds in (90, 110):
        streams.kill()
        streams.start()  # before anybody has looked
        look(seconds)
    assert str(look(114)).startswith("stream is in a crash loop, ended 3 times within 10 minutes")
    watch.close()
    began_anew = PlatformWatch(config, kept, began=NOW)
    other = psutil.Process(os.getppid())
    another = {"pid": other.pid, "created": other.create_time(), "parts": {}}
    (config.run / SUPERVISOR).write_text(json.dumps(another))
    streams.kill()
    began_anew.look(now + timedelta(seconds=120))
    streams.start()
    began_anew.look(now + timedelta(seconds=130))
    assert "system/stream" not in kept.active_causes(), "a new `city up`: the one before was killed with its stream"


@pytest.mark.parametrize("supervised", [True, False])
def test_a_source_that_falls_silent_while_its_peers_go_on_is_one_alarm(
    config: Settings, kept: AlertStore, supervised: bool
) -> None:
    (config.run / "stream.json").unlink()
    now = time.time()
    for name, last in (("simulator-a", now - 27), ("simulator-b", now), ("mqtt-bridge", now)):
        beat = {"at": now, "events_per_second": 0.0, "lag": 0, "last_error": None}
        mute(config, name, beat | {"samples": pace(last)})
    part = identity() | {"address": "", "state": "running", "last_error": None, "restarts": 0}
    loops = {"simulator-a": "a", "simulator-b": "b"}
    if supervised:
        parts = {"mqtt-bridge": part, "simulators": part | {"loops": loops}}
        (config.run / SUPERVISOR).write_text(json.dumps(identity() | {"parts": parts}))
    watch = PlatformWatch(config, kept, began=NOW)
    moment = datetime.now(UTC)
    for seconds in range(0, 240, 30):
        watch.look(moment + timedelta(seconds=seconds))
    others = ("system/disk", "system/stream")
    severities = {alarm.cause: alarm.severity for alarm in kept.alarms() if alarm.cause not in others}
    assert severities == {"system/simulator-a": "error"}


def test_a_process_that_hangs_is_one_alarm_and_its_loops_are_none(config: Settings, kept: AlertStore) -> None:
    (config.run / "stream.json").unlink()
    beat = {"events_per_second": 0.0, "lag": 0, "last_error": None}
    for name in ("simulators", "simulator-a", "simulator-b"):
        mute(config, name, beat)
    part = identity() | {"address": "", "state": "running", "last_error": None, "restarts": 0}
    parts = {"simulators": part | {"loops": {"simulator-a": "a", "simulator-b": "b"}}}
    (config.run / SUPERVISOR).write_text(json.dumps(identity() | {"parts": parts}))
    watch = PlatformWatch(config, kept, began=NOW)
    moment = datetime.now(UTC)
    for seconds in range(0, 240, 30):
        watch.look(moment + timedelta(seconds=seconds))
    titles = {
        alarm.cause: alarm.title for alarm in kept.alarms() if alarm.cause not in ("system/disk", "system/stream")
    }
    assert list(titles) == ["system/simulators"]
    assert "lives and does not report" in titles["system/simulators"]


@pytest.mark.parametrize("stopping", [False, True])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_supervisor_that_was_killed_is_one_alarm_until_the_city_is_started_again_or_stopped(
    config: Settings, kept: AlertStore, stopping: bool, stopped: bool
) -> None:
    """Also one that was killed while it stopped its parts."""
    part = {"address": "", "state": "running", "last_error": None, "restarts": 0}
    dead = {"pid": 999_999_999, "created": 1.0}
    parts = {"simulators": part | identity() | {"loops": {"simulator-a": "a"}}, "kafka": part | dead}
    parts |= {f"part-{number}": part | identity() for number in range(7)}
    parts["mqtt"] = part | {"pid": None, "created": None, "state": "external"}
    unavailable: dict[str, str | None] = {"questdb": "refused"}
    watch = PlatformWatch(config, kept, lambda: unavailable, began=NOW)
    moment = datetime.now(UTC)

    def watched(first: int) -> dict[str, str]:
        """The alarms after a minute of looks."""
        for seconds in range(first, first + 60, 5):
            watch.look(moment + timedelta(seconds=seconds))
        titles = {alarm.cause: alarm.title for alarm in kept.alarms() if alarm.active and alarm.cause != "system/disk"}
        return {cause: title for cause, title in titles.items() if cause.startswith("system/")}

    supervisor = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    runs = {"pid": supervisor.pid, "created": psutil.Process(supervisor.pid).create_time(), "parts": parts}
    (config.run / SUPERVISOR).write_text(json.dumps(runs))
    watched(0)
    (config.run / SUPERVISOR).write_text(json.dumps(runs | {"stopping": stopping}))
    supervisor.kill()
    supervisor.wait()
    raised = watched(200)
    assert raised.keys() == {"system/supervisor", "system/questdb"}, "a server that was asked is known to be down"
    assert "parts that end are not restarted. Ended: kafka. `city up` starts" in raised["system/supervisor"]
    if stopped:
        (config.run / SUPERVISOR).unlink()
    else:
        again = identity() | {"stopping": False, "parts": {"part-0": part | identity()}}
        (config.run / SUPERVISOR).write_text(json.dumps(again))
    unavailable["questdb"] = None
    assert watched(300) == {}


def test_of_two_watchers_one_judges_until_it_is_gone(config: Settings, kept: AlertStore) -> None:
    first, second = PlatformWatch(config, kept, began=NOW), PlatformWatch(config, kept, began=NOW)
    first.look(NOW)
    alive(config, lag=200_000)
    second.look(NOW + timedelta(seconds=10))
    assert causes(kept) == {}
    first.close()
    second.look(NOW + timedelta(seconds=12))
    assert list(causes(kept)) == [f"rule/stream_behind/stream.lag.{TOPIC}"]


SILENT = '[[rule]]\nname = "silent"\nmetric = "stream.alive"\noperator = "absent"\nseverity = "error"\n'
MORE = """
[[rule]]
name = "behind"
metric = "stream.lag.*"
operator = "greater"
value = 100_000
[[rule]]
name = "low"
metric = "quality.*"
operator = "less"
value = 0.9
severity = "error"
"""
METRIC = f"stream.events_per_second.{TOPIC}"
RULE = f'[[rule]]\nname = "quiet"\nmetric = "{METRIC}"\noperator = "less"\nvalue = 9\n'


def test_rules_come_from_a_file_and_those_that_are_gone_hold_no_more(config: Settings, kept: AlertStore) -> None:
    file = config.home / "alerts.toml"
    with_rules = config.model_copy(update={"alert_rules": file})
    file.write_text(RULE)
    watch = PlatformWatch(with_rules, kept, began=NOW)
    watch.look(NOW)
    assert list(causes(kept)) == [f"rule/quiet/stream.events_per_second.{TOPIC}"]
    file.write_text(RULE.replace("quiet", "still"))
    watch.look(NOW)
    assert list(causes(kept)) == [f"rule/still/stream.events_per_second.{TOPIC}"]


def test_a_rule_file_that_cannot_be_read_is_an_alarm_and_loses_none(config: Settings, kept: AlertStore) -> None:
    file = config.home / "alerts.toml"
    with_rules = config.model_copy(update={"alert_rules": file})
    file.write_text("[[rule]\n")
    alive(config, lag=200_000)
    watch = PlatformWatch(with_rules, kept, began=NOW)
    watch.look(NOW)
    assert {"system/alert_rules", f"rule/stream_behind/stream.lag.{TOPIC}"} <= {
        a.cause for a in kept.alarms() if a.active
    }
    file.write_text(RULE)
    watch.look(NOW)
    assert "system/alert_rules" not in {a.cause for a in kept.alarms() if a.active}


def test_a_rule_is_described_and_the_earlier_name_of_its_description_is_read_with_a_warning(config: Settings) -> None:
    (described,) = rules(ruled(config, RULE, 'description = "each second"\n'))
    with pytest.warns(FutureWarning, match="rule 'quiet': `means` is named `description` now"):
        (earlier,) = rules(ruled(config, RULE, 'means = "each second"\n'))
    assert described.description == "each second"
    assert earlier == described


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RULE.replace("value = 9", 'value = "9"'), "rule 'quiet': value is '9', and must be a number"),
        (
            RULE.replace('metric = "stream.events_per_second.city.sensors"', "metric = 3"),
            "metric is 3, and must be a text",
        ),
        (RULE.replace('"quiet"', '"io/quiet"'), "a name must not have a slash"),
        ("[[rule]\n", r"alerts.toml holds no rules.*\[\[rule\]\]"),
        (RULE.replace("value = 9", "value = nan"), "rule 'quiet': value is nan, which nothing compares with"),
        (RULE.replace("value = 9", "value = -inf"), "rule 'quiet': value is -inf, which nothing compares with"),
        (
            RULE.replace("stream.", "steam."),
            r"no metric 'steam\..*'; they begin with stream.alive",
        ),
        (RULE.replace("operator", "operater"), "unexpected keyword argument 'operater'"),
        (RULE.replace('"less"', '"below"'), "no operator 'below'; known: greater"),
        (RULE + RULE, "rule 'quiet' stands there twice"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_with_the_mend(config: Settings, text: str, message: str) -> None:
    file = config.home / "alerts.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    with pytest.raises(AlertError, match=message):
        rules(config.model_copy(update={"alert_rules": file}))


@pytest.mark.parametrize(
    ("metric", "near"),
    [
        ("model.maee.*", "model.mae.*"),
        ("model.maee*", "model.mae*"),
        ("model.accuracy.traffic_speed_5", "model.mae.traffic_speed_5"),
        ("model.champion.machine_live", "model.champion.machine_life"),
        ("model.features_stale.traffic_feature", "model.features_stale.traffic_features"),
        ("system.failing.questbd", "system.failing.questdb"),
        ("domain.active.payments.fruad", "domain.active.payments.fraud"),
        ("quality.sensor", "quality.sensors"),
        ("stream.lagg.*", "stream.lag.*"),
        ("stream.lag.city.sensor", "stream.lag.city.sensors"),
        ("source.stalled.simulator-trafic", "source.stalled.simulator-traffic"),
        ("system.disk_free", "system.disk_free_gb"),
    ],
)
def test_a_metric_with_a_typo_anywhere_is_refused_with_the_nearest_one(
    config: Settings, metric: str, near: str
) -> None:
    config.home.mkdir(parents=True, exist_ok=True)
    config = ruled(config, RULE.replace(METRIC, metric))
    with pytest.raises(AlertError, match=re.escape(f"no metric {metric!r}; ") + ".*" + re.escape(repr(near))):
        rules(config)
    config = ruled(config, RULE.replace(METRIC, near))
    assert [rule.metric for rule in rules(config)] == [near]


def test_all_that_is_given_can_be_ruled_about(config: Settings, kept: AlertStore) -> None:
    """By the names of the parts, sources and scores as their own code has them."""
    known = declared_metrics(config)
    names = {spec.name for spec in specs(config)} | {loop for spec in specs(config) for loop in spec.loops}
    assert {f"system.failing.{name}" for name in names | {"stream", "registry", CAUSE.removeprefix("system/")}} <= known
    (room, measured), scores = disk(config.home, 1.0), OutcomeScores(config, models())
    sources = [metrics([room]), measured, stream_metrics(config, NOW.timestamp()), FeatureFreshness(config).metrics()]
    assert all(sources)
    given = {name for source in sources for name in source}
    for name in models():
        scores.add(name, 1, NOW.timestamp(), "a" if models()[name].kind == "classification" else 1.0, "b", 1.0)
    given |= {*scores.metrics(dict.fromkeys(models(), 1), NOW.timestamp())}
    assert given - known == set()
    assert not [rule for rule in DEFAULT if not is_declared(rule.metric, known)]


def test_without_a_file_a_few_rules_are_in_force(config: Settings) -> None:
    assert rules(config) == DEFAULT


def test_metrics_take_the_place_of_those_from_before(kept: AlertStore) -> None:
    share(kept, "champions", {"model.champion.speed": 1.0, "model.champion.life": 1.0})
    share(kept, "quality", {"quality.sensors": 0.5})
    share(kept, "champions", {"model.champion.speed": 0.0})
    assert shared(kept) == {"model.champion.speed": 0.0, "quality.sensors": 0.5}


def test_nothing_is_judged_while_the_city_is_being_stopped(config: Settings, kept: AlertStore) -> None:
    alive(config, lag=200_000)
    (config.run / SUPERVISOR).write_text(json.dumps(identity() | {"stopping": True, "parts": {}}))
    PlatformWatch(config, kept, began=NOW).look(NOW)
    assert kept.alarms() == []


def test_a_stream_that_hands_over_is_not_silent(config: Settings, kept: AlertStore) -> None:
    config = ruled(config, SILENT)
    watch, began = PlatformWatch(config, kept, began=NOW - timedelta(hours=24)), NOW
    report = json.loads((config.run / "stream.json").read_text())
    (config.run / "stream.json").write_text(json.dumps(report | {"ended": True}))
    watch.look(began + timedelta(seconds=50))
    assert causes(kept) == {}
    watch.look(began + timedelta(seconds=70))
    assert causes(kept) == {"rule/silent/stream.alive": "error"}


def test_rules_can_be_about_alarms_of_a_domain(config: Settings, kept: AlertStore) -> None:
    kept.sync_findings([Finding(f"domain/equipment/anomaly/m{n}") for n in range(3)], None, NOW)
    assert active(kept.active_causes()) == {"domain.active.equipment.anomaly": 3.0}
    file = config.home / "alerts.toml"
    text = {"name": "many", "metric": "domain.active.*", "operator": "greater", "value": 2}
    file.write_text("[[rule]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in text.items()))
    watch = PlatformWatch(config.model_copy(update={"alert_rules": file}), kept, began=NOW)
    watch.look(NOW)
    assert list(causes(kept)) == ["rule/many/domain.active.equipment.anomaly"]
    kept.sync_findings([Finding(f"domain/equipment/anomaly/m{n}", state="passing") for n in range(3)], None, NOW)
    watch.look(NOW)
    assert causes(kept) == {}, "none at all is a number, too"


def test_a_server_that_is_the_watcher_itself_sees_that_it_was_killed(config: Settings, kept: AlertStore) -> None:
    """With a real supervisor, of a process that looks as the server does."""
    watcher = Spec(
        "server",
        "",
        [sys.executable, "-m", "tests.city.alerts.watching"],
        python(config),
        ready=lambda: (config.run / "looked").exists(),
    )
    supervisor = Supervisor(config, [watcher])
    thread = threading.Thread(target=supervisor.run, daemon=True)
    thread.start()
    try:
        until(lambda: (kept.remembered("parts") or {"seen": {}})["seen"].get("server"))
        pid = supervisor.parts[0].pid
        assert pid is not None
        assert "system/server" not in kept.active_causes()
        os.kill(pid, signal.SIGKILL)
        said = "server ended and was started again: killed by SIGKILL"
        until(lambda: any(alarm.title.startswith(said) for alarm in kept.alarms() if alarm.active))
        until(lambda: parts(config)["server"]["state"] == "running")
        shown = parts(config)["server"]
        assert (shown["exit"], shown["errors"]) == (shown["last_error"], []), (
            "why it ended is no error of its successor"
        )
        assert "killed by SIGKILL" in shown["last_error"]
    finally:
        supervisor.stop.set()
        thread.join(20)


def test_a_sensor_that_takes_over_hours_later_judges_nothing_by_what_it_saw_then(
    config: Settings, kept: AlertStore
) -> None:
    def running(**changes: Any) -> None:
        part = identity() | {"address": "", "state": "running", "last_error": None, "restarts": 0} | changes
        (config.run / SUPERVISOR).write_text(json.dumps(identity() | {"parts": {"kafka": part}}))

    (config.run / "stream.json").unlink()
    sensor, server = (
        PlatformWatch(config, kept, began=NOW),
        PlatformWatch(config, kept, lambda: {"kafka": None}, began=NOW),
    )
    running()
    sensor.look(NOW)
    sensor.close()
    for minute in range(2, 120, 2):
        running(restarts=int(minute >= 60))
        server.look(NOW + timedelta(minutes=minute))
    (restart,) = [alarm for alarm in kept.alarms() if alarm.cause == "system/kafka"]
    assert (restart.active, restart.count) == (False, 1)
    server.close()
    for seconds in (0, 30, 60):
        sensor.look(NOW + timedelta(minutes=120, seconds=seconds))
    assert kept.alarm(restart.id).count == 1, "that it was restarted was told an hour ago"
    assert "system/kafka" not in kept.active_causes()


def test_a_sensor_that_takes_over_clears_nothing_that_only_who_asks_can_tell(
    config: Settings, kept: AlertStore
) -> None:
    part = identity() | {"address": "", "state": "running", "last_error": None, "restarts": 0}
    (config.run / SUPERVISOR).write_text(json.dumps(identity() | {"parts": {"questdb": part}}))
    answer: list[str | None] = [None]
    server = PlatformWatch(config, kept, lambda: {"questdb": answer[0], "registry": answer[0]}, began=NOW)
    server.look(NOW)
    answer[0] = "no answer"
    for seconds in (2, 4, 8):
        server.look(NOW + timedelta(seconds=seconds))
    server.close()
    silent = {"system/questdb", "system/registry"}
    assert silent <= {*kept.active_causes()}
    sensor = PlatformWatch(config, kept, began=NOW)
    for seconds in (20, 50, 80):
        sensor.look(NOW + timedelta(seconds=seconds))
    sensor.close()
    assert silent <= {*kept.active_causes()}
    answer[0] = None
    server.look(NOW + timedelta(seconds=90))
    assert not silent & {*kept.active_causes()}


def test_a_stream_that_has_just_started_is_not_slow(config: Settings) -> None:
    """It reads the events that came while nothing streamed. Their age is not its latency."""
    entry = {"topic": "t", "lag": 5, "p95_ms": 400_000.0, "events_per_second": 9.0, "quarantined": 0}
    report = identity() | {"at": NOW.timestamp(), "ended": False, "streams": [entry]}
    config.run.mkdir(parents=True, exist_ok=True)

    def latency(seconds: float) -> float | None:
        content = report | {"started": NOW.timestamp() - seconds}
        (config.run / STREAM).write_text(json.dumps(content))
        metrics = stream_metrics(config, NOW.timestamp())
        assert metrics["stream.lag.t"] == 5
        return metrics["stream.p95_ms.t"]

    assert (latency(50), latency(70)) == (None, 400_000.0)
