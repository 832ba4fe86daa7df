"""From what Dagster knows to alarms, and back."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from dagster._core.events import DagsterEvent, JobFailureData

from city.alerts.model import Finding
from city.alerts.store import AlertStore, alert_store
from city.settings import Settings
from city_assets.definitions import defs
from city_assets.monitoring.checks import UNKNOWN, check_findings, overview
from city_assets.monitoring.freshness import Freshness, freshness_findings, freshness_of
from city_assets.monitoring.runs import RunCursor, run_findings
from sensors_and_schedules.watch_data import watch_data

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
RUNNING = dg.DagsterRunStatus.STARTED
KEY = dg.AssetCheckKey(dg.AssetKey(["gold", "a"]), "low")
DAYS = dg.StaticPartitionsDefinition(["2026-05-03", "2026-05-04"])


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """As the city's: a run that fails is tagged whether it is tried again."""
    with dg.DagsterInstance.ephemeral(settings={"run_retries": {"enabled": True}}) as ephemeral:
        yield ephemeral


@pytest.fixture
def kept(config: Settings) -> AlertStore:
    return alert_store(config)


class Gold:
    """An asset with a check, which does what it is told to."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.passes = True
        self.error: str | None = None
        self.unknown = False

        @dg.asset(key=KEY.asset_key, partitions_def=DAYS)
        def a() -> None:
            if self.error == "asset":
                raise ValueError("no rows came")

        @dg.asset_check(asset=a, name=KEY.name)
        def low() -> dg.AssetCheckResult:
            if self.error == "check":
                raise ValueError("a fault of the check")
            return dg.AssetCheckResult(
                passed=self.passes,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"rows": 3, **({UNKNOWN: "too few rows"} if self.unknown else {})},
                description="three rows",
            )

        self.job = dg.Definitions([a], asset_checks=[low]).get_implicit_global_asset_job_def()

    def run(self, day: str = "2026-05-04", **options: Any) -> dg.ExecuteInProcessResult:
        self.passes, self.error = options.get("passes", True), options.get("error")
        self.unknown = options.get("unknown", False)
        return self.job.execute_in_process(instance=self.instance, partition_key=day, raise_on_error=False)


@pytest.fixture
def gold(instance: dg.DagsterInstance) -> Gold:
    return Gold(instance)


def look(instance: dg.DagsterInstance, kept: AlertStore) -> dict[str, str]:
    """The active alarms after a look, with their titles."""
    details = {alarm.cause: alarm.detail or {} for alarm in kept.alarms() if alarm.active}
    kept.sync_findings(check_findings(instance, [KEY], details), "check/")
    return {alarm.cause: alarm.title for alarm in kept.alarms() if alarm.active}


FAILED = {"check/gold/a/low": "gold/a: check low failed: three rows"}


def test_a_failing_check_is_an_alarm_until_it_passes(
    instance: dg.DagsterInstance, kept: AlertStore, gold: Gold
) -> None:
    assert look(instance, kept) == {}
    gold.run(passes=False)
    for _ in range(3):
        assert look(instance, kept) == FAILED
    (alarm,) = kept.alarms()
    assert (alarm.severity, alarm.count) == ("warning", 3)
    assert alarm.detail is not None
    assert alarm.detail.items() >= {"rows": "3", "partition": "2026-05-04"}.items()
    assert alarm.labels == {"asset": "gold/a", "type": "check"}
    gold.run()
    assert look(instance, kept) == {}


def test_a_check_that_is_evaluated_again_clears_nothing_before_it_has_passed(
    instance: dg.DagsterInstance, kept: AlertStore, gold: Gold
) -> None:
    gold.run(passes=False)
    assert look(instance, kept) == FAILED
    run = instance.create_run_for_job(gold.job)
    planned = DagsterEvent(
        event_type_value=dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
        job_name=run.job_name,
        event_specific_data=AssetCheckEvaluationPlanned(asset_key=KEY.asset_key, check_name=KEY.name),
    )
    instance.report_dagster_event(planned, run.run_id)
    assert look(instance, kept) == FAILED, "it is under way"
    instance.report_run_canceled(run)
    assert look(instance, kept) == FAILED, "it was skipped"
    gold.run(unknown=True)
    assert look(instance, kept) == FAILED, "it could not tell"


def test_a_check_that_raises_is_an_alarm_of_its_own(instance: dg.DagsterInstance, kept: AlertStore, gold: Gold) -> None:
    gold.run(passes=False)
    look(instance, kept)
    gold.run(error="check")
    could_not = {"check/gold/a/low/evaluated": "gold/a: check low could not be evaluated: its run failed"}
    assert look(instance, kept) == FAILED | could_not
    gold.run()
    assert look(instance, kept) == {}


def test_a_day_that_failed_is_not_well_because_an_earlier_one_is(
    instance: dg.DagsterInstance, kept: AlertStore, gold: Gold
) -> None:
    gold.run("2026-05-04", passes=False)
    look(instance, kept)
    gold.run("2026-05-03")
    assert look(instance, kept) == FAILED
    gold.run("2026-05-04")
    assert look(instance, kept) == {}


def test_the_overview_has_each_check_as_it_was_last_evaluated(instance: dg.DagsterInstance, gold: Gold) -> None:
    gold.run(passes=False)
    summary = overview(check_findings(instance, [KEY], {}), {}, "http://dagster")
    assert (
        summary["failed"]["gold/a/low"].items()
        >= {
            "asset": "gold/a",
            "check": "low",
            "severity": "warning",
            "link": "http://dagster/assets/gold/a?view=checks",
        }.items()
    )
    instance.report_runless_asset_event(dg.AssetMaterialization(KEY.asset_key))
    summary = overview(check_findings(instance, [KEY], {}), summary, "http://dagster")
    assert list(summary["failed"]) == ["gold/a/low"], "a newer materialization does not hide it"
    gold.run(error="check")
    assert overview(check_findings(instance, [KEY], {}), summary, "") == summary, "it was not evaluated"
    gold.run()
    summary = overview(check_findings(instance, [KEY], {}), summary, "")
    assert summary == {"passed": ["gold/a/low"], "failed": {}}


def test_a_run_that_fails_is_an_alarm_until_one_succeeds(
    instance: dg.DagsterInstance, kept: AlertStore, gold: Gold
) -> None:
    cursor = RunCursor(datetime.now(UTC) - timedelta(minutes=1))

    def ended() -> dict[str, str]:
        nonlocal cursor
        findings, cursor = run_findings(instance, cursor, "http://dagster")
        kept.sync_findings(findings)
        return {alarm.cause: alarm.title for alarm in kept.alarms() if alarm.active}

    failed = gold.run(error="asset")
    assert ended() == {"run/gold/a": "run of gold/a failed: ValueError: no rows came"}
    (alarm,) = kept.alarms()
    assert alarm.detail is not None
    assert alarm.detail["link"] == f"http://dagster/runs/{failed.run_id}"
    assert ended() == {"run/gold/a": alarm.title}, "nothing has ended since"
    assert kept.alarms()[0].count == 1
    gold.run()
    assert ended() == {}
    assert run_findings(instance, RunCursor(), "", excluded_jobs=[gold.job.name])[0] == [], "watched otherwise"


class Runs:
    """Runs that say they ended so many seconds ago, in whatever order they are written down."""

    def __init__(self, instance: dg.DagsterInstance, *names: str) -> None:
        def made(name: str) -> dg.AssetsDefinition:
            @dg.asset(key=[name])
            def nothing() -> None: ...

            return nothing

        self.instance = instance
        self.job = dg.Definitions([made(name) for name in names]).get_implicit_global_asset_job_def()
        self.now = datetime.now(UTC)
        self.cursor = RunCursor(self.now - timedelta(hours=1))

    def fail(self, ago: float, name: str) -> str:
        assets = frozenset({dg.AssetKey([name])})
        run = self.instance.create_run_for_job(self.job, asset_selection=assets, status=RUNNING)
        failure = DagsterEvent(
            event_type_value=dg.DagsterEventType.PIPELINE_FAILURE.value,
            job_name=run.job_name,
            event_specific_data=JobFailureData(error=None),
        )
        self.instance.run_storage.handle_run_event(run.run_id, failure, self.now - timedelta(seconds=ago))
        return run.run_id

    def look(self) -> list[str]:
        """What has failed, with the cursor as the sensor keeps it."""
        findings, cursor = run_findings(self.instance, self.cursor, "")
        self.cursor = RunCursor.from_content(json.loads(json.dumps(cursor.content())))
        assert self.cursor == cursor
        return [finding.cause.removeprefix("run/") for finding in findings if finding.state == "failing"]


def test_a_run_that_is_written_down_late_is_seen_and_none_is_seen_twice(instance: dg.DagsterInstance) -> None:
    runs = Runs(instance, "first", "second", "earlier", "old")
    runs.fail(60, "first")
    assert runs.look() == ["first"]
    assert runs.look() == []
    runs.fail(60, "second")
    assert sorted(runs.look()) in (["second"], ["first", "second"]), "at the very same time"
    runs.fail(200, "earlier")
    assert runs.look()[0] == "earlier"
    assert runs.look() == []
    instance.add_run_tags(runs.fail(3_000, "old"), {"note": "seen"})
    assert runs.look() == [], "a tag is no end"


def test_a_failure_that_is_written_down_late_does_not_undo_a_later_success(
    instance: dg.DagsterInstance, kept: AlertStore, gold: Gold
) -> None:
    failed = gold.run(error="asset")
    gold.run()
    _, cursor = run_findings(instance, RunCursor(), "")
    others = {run: at for run, at in cursor.seen.items() if run != failed.run_id}
    findings, _ = run_findings(instance, RunCursor(cursor.until, others), "")
    assert [f.state for f in findings if f.cause == "run/gold/a"] == ["failing", "passing"]
    kept.sync_findings(findings)
    assert kept.active_causes() == []


def test_more_runs_than_one_look_takes_are_seen_by_the_next(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("city_assets.monitoring.runs._LATEST_RUNS", 3)
    names = [f"a{number}" for number in range(8)]
    runs = Runs(instance, *names)
    for number, name in enumerate(names):  # all within the overlap
        runs.fail(60 - number, name)
    assert [len(runs.look()) for _ in range(4)] == [3, 3, 2, 0]


def test_the_cursor_of_an_earlier_version_reports_no_run_again(instance: dg.DagsterInstance) -> None:
    runs = Runs(instance, "before", "at", "after")
    runs.fail(120, "before")
    runs.fail(60, "at")
    runs.cursor = RunCursor.from_content((runs.now - timedelta(seconds=60)).isoformat())
    assert runs.look() == []
    runs.fail(30, "after")
    assert runs.look() == ["after"]
    assert runs.look() == []


def test_a_run_of_a_clock_that_is_ahead_hides_none_of_those_that_follow(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("city_assets.monitoring.runs._TAGGED_AFTER", timedelta(0))
    runs = Runs(instance, "ahead", "next", "last")
    runs.fail(-30 * 86_400, "ahead")
    assert runs.look() == ["ahead"]
    assert runs.cursor.until is not None
    assert runs.cursor.until <= datetime.now(UTC)
    runs.fail(1, "next")
    assert runs.look() == ["next"], "and it does not come after what ended later"
    assert runs.look() == []
    runs.cursor = RunCursor(runs.now + timedelta(days=30))  # as an earlier version kept it
    runs.look()
    runs.fail(0, "last")
    assert "last" in runs.look()


def test_tags_on_more_old_runs_than_one_look_takes_do_not_hold_it_up(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("city_assets.monitoring.runs._LATEST_RUNS", 3)
    monkeypatch.setattr("city_assets.monitoring.runs._TAGGED_AFTER", timedelta(0))
    runs = Runs(instance, *(f"old{number}" for number in range(6)), "new")
    runs.cursor = RunCursor(runs.now - timedelta(minutes=20))
    for number in range(6):
        instance.add_run_tags(runs.fail(3_000, f"old{number}"), {"note": "seen"})
    runs.now = datetime.now(UTC)
    runs.fail(0, "new")
    assert [runs.look() for _ in range(3)] == [[], [], ["new"]]


def test_a_run_that_is_tried_again_says_nothing_yet_and_one_that_was_killed_names_what_it_was_to_make(
    instance: dg.DagsterInstance, gold: Gold
) -> None:
    first = gold.run(error="asset")
    instance.add_run_tags(first.run_id, {"dagster/will_retry": "true"})
    assert run_findings(instance, RunCursor(), "")[0] == []
    killed = instance.create_run_for_job(gold.job, asset_selection=frozenset({KEY.asset_key}), status=RUNNING)
    instance.report_run_failed(killed, "its process is gone")
    (finding,) = run_findings(instance, RunCursor(), "")[0]
    assert (finding.cause, finding.state) == ("run/gold/a", "failing")


def test_a_table_is_old_when_it_lacks_for_long_what_its_parent_has(instance: dg.DagsterInstance) -> None:
    """A topic may be silent for hours. Its first new row makes the table late only when it is not built in time."""
    child, parent = dg.AssetKey("child"), dg.AssetKey("parent")
    followed = {child: Freshness(frozenset({parent}), timedelta(minutes=40), timedelta(hours=2))}

    def judged(state: FreshnessState, minutes: float = 0) -> str:
        change = FreshnessStateChange(
            key=child,
            previous_state=FreshnessState.UNKNOWN,
            new_state=state,
            state_change_timestamp=NOW.timestamp(),
        )
        instance._report_runless_asset_event(change)
        (finding,) = freshness_findings(instance, followed, datetime.now(UTC) + timedelta(minutes=minutes))
        return f"{finding.state} {finding.severity}"

    instance.report_runless_asset_event(dg.AssetMaterialization(parent))
    instance.report_runless_asset_event(dg.AssetMaterialization(child))
    assert judged(FreshnessState.PASS) == "passing error"
    assert judged(FreshnessState.WARN, 300) == "passing warning", "nothing has come since"
    instance.report_runless_asset_event(dg.AssetMaterialization(parent))
    assert judged(FreshnessState.WARN, 39) == "passing warning", "the next build has it"
    assert judged(FreshnessState.WARN, 41) == "failing warning"
    instance.report_runless_asset_event(dg.AssetMaterialization(parent))
    assert judged(FreshnessState.FAIL, 119) == "failing warning", "since the first of them, not the last"
    assert judged(FreshnessState.FAIL, 121) == "failing error"
    assert judged(FreshnessState.UNKNOWN) == "unknown error"


def test_the_tables_of_the_graph_have_windows() -> None:
    followed = freshness_of(defs.resolve_asset_graph())
    silver = followed[dg.AssetKey(["silver", "chargebacks"])]
    assert silver == Freshness(
        frozenset({dg.AssetKey(["bronze", "chargebacks"])}), timedelta(minutes=40), timedelta(hours=2)
    )


def test_the_sensor_says_what_it_did(
    config: Settings, kept: AlertStore, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
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
    assert reason.skip_message == "0 alarms are active"
    kept.sync_findings([Finding("run/silver/a", title="a failed run"), Finding("run/silver/b", title="another")])
    reason = watch_data(context)
    assert isinstance(reason, dg.SkipReason)
    assert reason.skip_message == "2 alarms are active"

    def away(lake: Path) -> dict[str, float]:
        raise OSError(f"{lake} is unavailable")

    monkeypatch.setattr("sensors_and_schedules.watch_data.latest_scores", away)
    reason = watch_data(context)
    assert isinstance(reason, dg.SkipReason)
    assert reason.skip_message == f"quality: {config.lake} is unavailable", "the other looks go on"
