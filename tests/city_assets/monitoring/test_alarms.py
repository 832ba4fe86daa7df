"""From a failing check in Dagster to an alarm, and back when it passes again."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from city.alerts.desk import Desk, desk
from city.alerts.model import AlertError
from city.alerts.rules import DEFAULT, rules
from city.settings import Settings
from city_assets.monitoring.alarms import check_findings, watch
from sensors_and_schedules.watch_data import watch_data

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
KEY = dg.AssetCheckKey(dg.AssetKey(["gold", "a"]), "low")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def check(instance: dg.DagsterInstance, passed: bool) -> None:
    event = dg.AssetCheckEvaluation(
        asset_key=KEY.asset_key,
        check_name=KEY.name,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"rows": 3},
        description="three rows",
    )
    instance.report_runless_asset_event(event)


def alive(config: Settings, **stream: float) -> None:
    entry = {"topic": "t", "lag": 0, "p95_ms": 200.0, "events_per_second": 5.0, "quarantined": 0} | stream
    config.run.mkdir(parents=True, exist_ok=True)
    report = {"at": NOW.timestamp(), "ended": False, "streams": [entry]}
    (config.run / "stream.json").write_text(json.dumps(report))


@pytest.fixture
def kept(config: Settings) -> Desk:
    alive(config)
    return desk(config)


def test_a_failing_check_is_an_alarm_until_it_passes(
    config: Settings, instance: dg.DagsterInstance, kept: Desk
) -> None:
    assert check_findings(instance, [KEY]) == []
    check(instance, passed=False)
    for _ in range(3):
        watch(config, kept, check_findings(instance, [KEY]), {}, NOW)
    (alarm,) = kept.alarms()
    assert (alarm.cause, alarm.severity, alarm.count) == ("check/gold/a/low", "warning", 3)
    assert alarm.title == "gold/a: check low failed: three rows"
    assert alarm.detail == {"rows": "3"}
    check(instance, passed=True)
    done = watch(config, kept, check_findings(instance, [KEY]), {}, NOW)
    assert (done.cleared, kept.alarms()[0].state) == (1, "cleared, unacknowledged")


def test_rules_watch_the_stream_and_the_scores(config: Settings, kept: Desk) -> None:
    alive(config, lag=200_000)
    watch(config, kept, [], {"quality.sensors": 0.5}, NOW)
    assert {a.cause: a.severity for a in kept.alarms()} == {
        "rule/stream_behind/stream.lag.t": "warning",
        "rule/quality_low/quality.sensors": "error",
    }
    alive(config)
    assert watch(config, kept, [], {"quality.sensors": 1.0}, NOW).cleared == 2
    late = NOW + timedelta(minutes=2)
    assert watch(config, kept, [], {}, late).raised == 1, "the stream's last word is two minutes old"
    assert kept.alarms()[0].title == "stream.alive is absent (no stream reports)"


def test_rules_come_from_a_file_and_a_broken_one_is_told(config: Settings) -> None:
    file = config.home / "alerts.toml"
    with_rules = config.model_copy(update={"alert_rules": file})
    file.write_text('[[rule]]\nname = "quiet"\nmetric = "stream.events_per_second.t"\noperator = "less"\nvalue = 1\n')
    assert [rule.name for rule in rules(with_rules)] == ["quiet"]
    file.write_text("[[rule]\n")
    with pytest.raises(AlertError, match=r"CITY_ALERT_RULES: .*alerts.toml holds no rules.*\[\[rule\]\]"):
        rules(with_rules)
    assert rules(config) == DEFAULT


def test_an_alarm_nobody_takes_is_escalated(config: Settings, kept: Desk, instance: dg.DagsterInstance) -> None:
    check(instance, passed=False)
    found = check_findings(instance, [KEY])
    watch(config, kept, found, {}, NOW)
    alive(config)
    assert watch(config, kept, found, {}, NOW + timedelta(minutes=31)).escalated == 1
    assert next(a for a in kept.alarms() if a.cause.startswith("check/")).severity == "error"


def test_the_sensor_says_what_it_did(
    config: Settings, kept: Desk, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.asset
    def anything() -> None: ...

    context = dg.build_sensor_context(instance=instance, repository_def=dg.Definitions([anything]).get_repository_def())
    monkeypatch.setattr("sensors_and_schedules.watch_data._START_SECONDS", 1e9)
    reason = watch_data(context)
    assert "still starting" in str(reason.skip_message)  # type: ignore[union-attr]
    monkeypatch.setattr("sensors_and_schedules.watch_data._START_SECONDS", 0.0)
    reason = watch_data(context)
    assert isinstance(reason, dg.SkipReason)
    assert "raised" in str(reason.skip_message)
