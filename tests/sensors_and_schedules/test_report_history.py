"""What Dagster learns of the history of a new city, and that it builds none of its days again."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, timedelta
from types import SimpleNamespace

import dagster as dg
import pytest

from city.contracts.model import Contract
from city.dagster_internals import BaseAssetGraph, FreshnessState
from city.lake.lakehouse import lakehouse
from city.settings import Settings
from city.stack.history_plan import FINISHED, RECORD, HistoryPlan, make_plan
from city.tables.registry import tables
from city_assets import history, keys, maintenance
from city_assets.automation import HISTORY_TAG
from city_assets.definitions import build
from city_assets.models import predictions_key
from city_assets.monitoring.freshness import freshness_findings, freshness_of
from city_assets.monitoring.quality import quality_key
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.models import CONGESTION
from sensors_and_schedules import report_history
from tests.lakes import drive, stream
from tests.ticks import NOW, TODAY, City, days_of, selected

BRONZE, QUALITY = keys.bronze(VEHICLE_POSITIONS), quality_key(VEHICLE_POSITIONS)
SILVER, GOLD = keys.table("silver/vehicle_positions"), keys.table("gold/traffic_cells_hourly")
PREDICTIONS = predictions_key(CONGESTION)
PAST = [TODAY - timedelta(days=n) for n in range(14, 0, -1)]
YESTERDAY = TODAY - timedelta(days=1)


@pytest.fixture
def plan(config: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[HistoryPlan]:
    """A city that began today, whose bronze has every day of the history."""

    def days_in_bronze(_: object, contract: Contract, days: list[date]) -> list[date]:
        return days if contract.rate == "high" else days[:1]

    monkeypatch.setattr(report_history, "recorded_days", days_in_bronze)
    yield make_plan(config.model_copy(update={"history_days": 14}), now=NOW.astimezone(UTC))
    keys.reload_days()


@pytest.fixture
def city(plan: HistoryPlan) -> Iterator[City]:
    repository = build().get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:
        city = City(instance, repository)
        assert city.tick(0) == []
        yield city


def make(config: Settings, plan: HistoryPlan, *, is_finished: bool = True, without: str = "") -> None:
    """Records the history as made, less the steps whose names begin with `without`."""
    done = [step.name for step in history.steps(config, plan) if not (without and step.name.startswith(without))]
    (config.home / RECORD).write_text(json.dumps(done))
    if is_finished:
        (config.home / FINISHED).touch()


class Reporter:
    """The sensor, one tick after the other."""

    def __init__(self, city: City) -> None:
        self.city = city
        self.cursor: str | None = None

    def tick(self) -> list[dg.AssetMaterialization]:
        context = dg.build_sensor_context(self.city.instance, self.cursor, repository_def=self.city.repository)
        result = report_history.evaluate(context)
        if isinstance(result, dg.SkipReason):
            return []
        self.cursor = result.cursor
        events = [event for event in result.asset_events if isinstance(event, dg.AssetMaterialization)]
        for event in events:
            self.city.instance.report_runless_asset_event(event)
        return events

    def report_all(self) -> list[dg.AssetMaterialization]:
        events = list[dg.AssetMaterialization]()
        while portion := self.tick():
            events += portion
        return events


def past_days(requests: list[dg.RunRequest]) -> list[date]:
    return [day for request in requests for day in days_of(request) if day < TODAY]


def test_every_day_of_every_table_is_reported_with_its_mark(
    config: Settings, plan: HistoryPlan, city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(config, plan)
    stream(config.lake, VEHICLE_POSITIONS, drive(NOW - timedelta(hours=1), 0.5), NOW)
    lakehouse(config).build(tables()["silver/vehicle_positions"], [TODAY])
    reporter = Reporter(city)
    events = reporter.report_all()
    (silver,) = [event for event in events if (event.asset_key, event.partition) == (SILVER, str(TODAY))]
    assert silver.metadata["dagster/partition_row_count"].value == 24
    assert all(event.tags == {HISTORY_TAG: "true"} for event in events)
    for key in (BRONZE, SILVER, GOLD, QUALITY):
        assert city.instance.get_materialized_partitions(key) == {str(day) for day in (*PAST, TODAY)}, key
    reported = {event.asset_key for event in events}
    assert {keys.table(name) for name in ("silver/devices", "features/online", "models/traffic_congestion")} <= reported
    assert PREDICTIONS not in reported, "the history has no predictions"
    assert len({(event.asset_key, event.partition) for event in events}) == len(events)
    assert reporter.tick() == []
    assert reporter.cursor
    assert len(reporter.cursor) < 4_000, "Dagster stores it at each tick"
    monkeypatch.setattr(report_history, "reports", None)
    assert reporter.tick() == [], "and it costs nothing afterwards"


def test_a_table_is_reported_before_what_it_is_made_from(config: Settings, plan: HistoryPlan, city: City) -> None:
    make(config, plan)
    events = Reporter(city).report_all()
    first = {key: min(n for n, event in enumerate(events) if event.asset_key == key) for key in (BRONZE, SILVER, GOLD)}
    assert first[GOLD] < first[SILVER] < first[BRONZE]


def test_nothing_is_reported_before_all_tables_are_made_and_models_at_the_end(
    config: Settings, plan: HistoryPlan, city: City
) -> None:
    reporter = Reporter(city)
    assert reporter.tick() == []
    make(config, plan, is_finished=False, without="table features/")
    assert reporter.tick() == []
    make(config, plan, is_finished=False, without="model ")
    tables = reporter.report_all()
    assert {BRONZE, GOLD} < {event.asset_key for event in tables}
    make(config, plan)
    models = reporter.report_all()
    assert {event.asset_key.path[0] for event in models} == {"models"}


def test_a_change_of_the_domains_or_the_release_between_two_portions_skips_nothing(
    config: Settings, plan: HistoryPlan, city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is listed changes then. A domain that is active again later is reported when its history is made."""
    make(config, plan)
    everything = report_history.reports(config, plan, city.repository.asset_graph)
    monkeypatch.setattr(report_history, "PORTION", 60)
    reporter = Reporter(city)
    events = [*reporter.tick(), *reporter.tick()]
    all_domains, real = history.simulated(config), report_history.reports
    traffic = [domain for domain in all_domains if domain.name == "traffic"]
    monkeypatch.setattr(history, "simulated", lambda _: traffic)
    monkeypatch.setattr(report_history, "reports", lambda *given: [r for r in real(*given) if "traffic" in str(r.key)])
    events += reporter.report_all()
    assert {event.asset_key for event in events} < {report.key for report in everything}
    monkeypatch.setattr(history, "simulated", lambda _: all_domains)
    monkeypatch.setattr(report_history, "reports", real)
    events += reporter.report_all()
    reported = [(event.asset_key, event.partition) for event in events]
    assert len(set(reported)) == len(reported)
    assert set(reported) == {(report.key, str(report.day) if report.day else None) for report in everything}


def test_while_and_after_the_history_is_reported_no_past_day_is_requested(
    config: Settings, plan: HistoryPlan, city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each portion is followed by a tick at a full hour, at which all that is automated is due."""
    monkeypatch.setattr(report_history, "PORTION", 60)
    make(config, plan)
    reporter, minutes = Reporter(city), 59
    history_keys = {keys.table(step.asset) for step in history.steps(config, plan) if step.asset and step.days}
    while reporter.tick():
        requests = city.tick(minutes)
        assert past_days(requests) == []
        assert not any(selected(request) & history_keys for request in requests), "the history has built these"
        minutes += 60
    assert minutes > 5 * 60
    for _ in range(3):
        assert past_days(city.tick(minutes)) == []
        minutes += 60


def test_the_day_on_which_the_city_began_is_built_when_live_rows_come(
    config: Settings, plan: HistoryPlan, city: City
) -> None:
    city.grew(BRONZE)  # before the report
    make(config, plan)
    reporter = Reporter(city)
    reporter.tick()
    (run,) = city.tick(9)
    assert days_of(run) == [TODAY]
    assert {SILVER, GOLD} <= selected(run)
    reporter.report_all()
    city.grew(BRONZE)
    (run,) = city.tick(59)
    assert days_of(run) == [TODAY]
    assert {SILVER, GOLD, QUALITY, PREDICTIONS} <= selected(run)
    city.grew(BRONZE, day=YESTERDAY)  # a late event, in a day of the history
    (run,) = [run for run in city.tick(119) if days_of(run) == [YESTERDAY]]
    assert {SILVER, GOLD, QUALITY, PREDICTIONS} <= selected(run)


def test_a_report_of_the_history_is_no_change_that_a_table_lacks(
    config: Settings, plan: HistoryPlan, city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bronze is reported after its tables. Without live rows, they are as new as they can be."""
    make(config, plan)
    Reporter(city).report_all()
    graph: BaseAssetGraph = city.repository.asset_graph
    followed = {SILVER: freshness_of(graph)[SILVER]}
    late = NOW.astimezone(UTC) + timedelta(days=1)
    too_old = {SILVER: SimpleNamespace(freshness_state=FreshnessState.FAIL)}
    monkeypatch.setattr(city.instance, "get_freshness_state_records", lambda _: too_old)
    (finding,) = freshness_findings(city.instance, followed, late)
    assert finding.state == "passing"
    city.grew(BRONZE)
    (finding,) = freshness_findings(city.instance, followed, late)
    assert finding.state == "failing"


def test_the_retention_of_events_makes_no_past_day_missing(
    config: Settings, plan: HistoryPlan, city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each deletion the automation looks, without Dagster's cache of what is materialized, which it drops when
    the first day of the lake changes."""
    make(config, plan)
    Reporter(city).report_all()
    city.grew(BRONZE)
    city.grew(BRONZE, day=YESTERDAY)
    runs = city.tick(59)
    for key in (SILVER, GOLD, QUALITY, PREDICTIONS):
        assert {day for run in runs if key in selected(run) for day in days_of(run)} >= {YESTERDAY, TODAY}, key
    instance, minutes, requests = city.instance, [119], list[dg.RunRequest]()

    def look() -> None:
        for key in instance.all_asset_keys():
            instance.event_log_storage.wipe_asset_cached_status(key)
        requests.extend(city.tick(minutes[0]))
        minutes[0] += 60

    def then_look(delete: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object) -> object:
            result = delete(*arguments)
            look()
            return result

        return wrapped

    look()
    monkeypatch.setattr(maintenance, "_RETENTION_SECONDS", 1.0)  # the first batch: a look may start runs
    monkeypatch.setattr(maintenance, "timedelta", lambda days: -timedelta(days=1))  # all that there is now is old
    monkeypatch.setattr(instance, "delete_run", then_look(instance.delete_run))
    monkeypatch.setattr(maintenance, "delete_runless_events", then_look(maintenance.delete_runless_events))
    maintenance.run_retention.execute_in_process(instance=instance)
    look()
    assert minutes[0] > 5 * 60
    assert [(selected(request), days_of(request)) for request in requests if days_of(request)] == []
    assert instance.get_materialized_partitions(SILVER) == {str(day) for day in PAST}, "those of the history"
