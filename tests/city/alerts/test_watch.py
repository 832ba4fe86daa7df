"""The rules in force, who judges, and what metrics come from where."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from city.alerts.desk import Desk, desk
from city.alerts.model import AlertError, Finding
from city.alerts.rules import DEFAULT, rules
from city.alerts.watch import Watch, active, share, shared
from city.settings import Settings
from city.stack.state import SUPERVISOR

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def alive(config: Settings, at: datetime = NOW, **stream: float) -> None:
    entry = {"topic": "t", "lag": 0, "p95_ms": 200.0, "events_per_second": 5.0, "quarantined": 0} | stream
    config.run.mkdir(parents=True, exist_ok=True)
    report = {"at": at.timestamp(), "ended": False, "failure": None, "streams": [entry]}
    (config.run / "stream.json").write_text(json.dumps(report))


@pytest.fixture
def kept(config: Settings) -> Desk:
    config.home.mkdir(parents=True, exist_ok=True)
    alive(config)
    return desk(config)


def causes(kept: Desk) -> dict[str, str]:
    return {a.cause: a.severity for a in kept.alarms() if a.active and a.cause.startswith("rule/")}


def test_rules_watch_the_stream_and_the_scores(config: Settings, kept: Desk) -> None:
    watch = Watch(config, kept, began=NOW)
    alive(config, lag=200_000)
    share(kept, "quality", {"quality.sensors": 0.5})
    watch.look(NOW)
    assert causes(kept) == {"rule/stream_behind/stream.lag.t": "warning", "rule/quality_low/quality.sensors": "error"}
    share(kept, "quality", {"quality.sensors": None})
    alive(config)
    watch.look(NOW)
    assert causes(kept) == {"rule/quality_low/quality.sensors": "error"}, "what is not known clears nothing"
    share(kept, "quality", {"quality.sensors": 1.0})
    watch.look(NOW)
    assert causes(kept) == {}
    watch.look(NOW + timedelta(minutes=2))
    assert causes(kept) == {}, "its last word is two minutes old, but everything is still starting"
    watch.look(NOW + timedelta(minutes=3))
    assert causes(kept) == {"rule/stream_silent/stream.alive": "error"}


def test_of_two_watchers_one_judges_until_it_is_gone(config: Settings, kept: Desk) -> None:
    first, second = Watch(config, kept, began=NOW), Watch(config, kept, began=NOW)
    first.look(NOW)
    alive(config, lag=200_000)
    second.look(NOW + timedelta(seconds=10))
    assert causes(kept) == {}
    first.close()
    second.look(NOW + timedelta(seconds=12))
    assert list(causes(kept)) == ["rule/stream_behind/stream.lag.t"]


RULE = '[[rule]]\nname = "quiet"\nmetric = "stream.events_per_second.t"\noperator = "less"\nvalue = 9\n'


def test_rules_come_from_a_file_and_those_that_are_gone_hold_no_more(config: Settings, kept: Desk) -> None:
    file = config.home / "alerts.toml"
    with_rules = config.model_copy(update={"alert_rules": file})
    file.write_text(RULE)
    watch = Watch(with_rules, kept, began=NOW)
    watch.look(NOW)
    assert list(causes(kept)) == ["rule/quiet/stream.events_per_second.t"]
    file.write_text(RULE.replace("quiet", "still"))
    watch.look(NOW)
    assert list(causes(kept)) == ["rule/still/stream.events_per_second.t"]


def test_a_rule_file_that_cannot_be_read_is_an_alarm_and_loses_none(config: Settings, kept: Desk) -> None:
    file = config.home / "alerts.toml"
    with_rules = config.model_copy(update={"alert_rules": file})
    file.write_text("[[rule]\n")
    alive(config, lag=200_000)
    watch = Watch(with_rules, kept, began=NOW)
    watch.look(NOW)
    assert {"system/alert_rules", "rule/stream_behind/stream.lag.t"} <= {a.cause for a in kept.alarms() if a.active}
    file.write_text(RULE)
    watch.look(NOW)
    assert "system/alert_rules" not in {a.cause for a in kept.alarms() if a.active}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RULE.replace("value = 9", 'value = "9"'), "rule 'quiet': value is '9', and must be a number"),
        (RULE.replace('metric = "stream.events_per_second.t"', "metric = 3"), "metric is 3, and must be a text"),
        (RULE.replace('"quiet"', '"io/quiet"'), "a name must not have a slash"),
        ("[[rule]\n", r"alerts.toml holds no rules.*\[\[rule\]\]"),
        (RULE.replace("stream.", "steam."), r"no metric 'steam.events_per_second.t'; they begin with stream.alive"),
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


def test_without_a_file_a_few_rules_are_in_force(config: Settings) -> None:
    assert rules(config) == DEFAULT


def test_metrics_take_the_place_of_those_from_before(kept: Desk) -> None:
    share(kept, "outcomes/speed", {"model.mae.speed": 4.0, "model.version.speed": 1.0})
    share(kept, "outcomes/life", {"model.mae.life": 1.0})
    share(kept, "outcomes/speed", {"model.version.speed": 2.0})
    assert shared(kept) == {"model.version.speed": 2.0, "model.mae.life": 1.0}, "a new version has no figures yet"


def test_nothing_is_judged_while_the_city_is_being_stopped(config: Settings, kept: Desk) -> None:
    alive(config, lag=200_000)
    (config.run / SUPERVISOR).write_text(json.dumps({"stopping": True, "pid": 1, "created": 0, "parts": {}}))
    Watch(config, kept, began=NOW).look(NOW)
    assert kept.alarms() == []


def test_a_stream_that_hands_over_is_not_silent(config: Settings, kept: Desk) -> None:
    watch, began = Watch(config, kept, began=NOW - timedelta(hours=24)), NOW
    report = json.loads((config.run / "stream.json").read_text())
    (config.run / "stream.json").write_text(json.dumps(report | {"ended": True}))
    watch.look(began + timedelta(seconds=50))
    assert causes(kept) == {}
    watch.look(began + timedelta(seconds=70))
    assert causes(kept) == {"rule/stream_silent/stream.alive": "error"}


def test_rules_can_be_about_alarms_of_a_domain(config: Settings, kept: Desk) -> None:
    kept.report([Finding(f"domain/equipment/anomaly/m{n}") for n in range(3)], None, NOW)
    assert active(kept.alarms()) == {"domain.active.equipment.anomaly": 3.0}
    file = config.home / "alerts.toml"
    text = {"name": "many", "metric": "domain.active.*", "operator": "greater", "value": 2}
    file.write_text("[[rule]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in text.items()))
    watch = Watch(config.model_copy(update={"alert_rules": file}), kept, began=NOW)
    watch.look(NOW)
    assert list(causes(kept)) == ["rule/many/domain.active.equipment.anomaly"]
    kept.report([Finding(f"domain/equipment/anomaly/m{n}", state="passing") for n in range(3)], None, NOW)
    watch.look(NOW)
    assert causes(kept) == {}, "none at all is a number, too"
