"""Tables as assets: partitions, lineage, automation, and what a run writes and shows."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl
import pytest

from city.contracts.registry import domain_of
from city.lake.engines.polars import PolarsEngine
from city.lake.faults import count_faults
from city.settings import Settings
from city.tables.registry import table_of
from city_assets import keys
from city_assets.automation import LEARNED, when_changed
from city_assets.definitions import build
from city_assets.tables import FRESH, lineage, table_assets
from city_assets.traffic.contract import VEHICLE_POSITIONS
from resources.lake import LakeResource
from tests.lakes import drive, stream

DAY = date(2026, 5, 4)
MIDNIGHT = datetime(2026, 5, 4, tzinfo=ZoneInfo("America/New_York"))
LIVE = dg.AssetSelection.keys("silver/vehicle_positions", "gold/traffic_cells_hourly", "gold/traffic_cells_daily")


@pytest.fixture
def lake(config: Settings) -> LakeResource:
    resource = LakeResource(path=str(config.lake))
    stream(resource.root, VEHICLE_POSITIONS, drive(MIDNIGHT, 3), MIDNIGHT + timedelta(hours=3))
    return resource


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def run(lake: LakeResource, instance: dg.DagsterInstance, raises: bool = True) -> dg.ExecuteInProcessResult:
    assets = table_assets(domain_of("traffic"))
    return dg.materialize(
        assets,
        raise_on_error=raises,
        selection=LIVE,
        resources={"lake": lake},
        partition_key=str(DAY),
        instance=instance,
    )


def test_what_is_used_from_the_next_day_on_is_built_hourly() -> None:
    labels = {}
    for definition in table_assets(domain_of("traffic")):
        for spec in definition.specs:
            if spec.automation_condition is not None:
                labels[spec.key.path[-1]] = spec.automation_condition.get_label()
    hourly = {name for name, label in labels.items() if label == when_changed(LEARNED).get_label()}
    assert hourly == {"traffic_speeds_hourly", "traffic_usual_speeds", "traffic_pair_changes", "traffic_leaders"}
    assert {label for name, label in labels.items() if name not in hourly} == {when_changed().get_label()}


def test_a_day_is_built_from_silver_to_gold_and_shows_what_it_is(
    lake: LakeResource, instance: dg.DagsterInstance
) -> None:
    assert run(lake, instance).success
    assert pl.read_delta(str(lake.root / "gold/traffic_cells_daily"))["positions"].sum() == 3 * 12 * 4
    event = instance.get_latest_materialization_event(keys.table("silver/vehicle_positions"))
    assert event is not None
    shown = event.asset_materialization.metadata  # type: ignore[union-attr]
    assert shown["dagster/partition_row_count"].value == 3 * 12 * 4
    assert shown["hours_rebuilt"].value == 3
    assert "data:image/svg+xml" in str(shown["rows_by_day"].value)
    assert "| v0 |" in str(shown["newest"].value)


def test_a_second_run_builds_only_the_hours_with_news(lake: LakeResource, instance: dg.DagsterInstance) -> None:
    run(lake, instance)
    late = drive(MIDNIGHT + timedelta(seconds=5), 0.2)
    stream(lake.root, VEHICLE_POSITIONS, late, MIDNIGHT + timedelta(hours=4))
    run(lake, instance)
    event = instance.get_latest_materialization_event(keys.table("silver/vehicle_positions"))
    assert event.asset_materialization.metadata["hours_rebuilt"].value == 1  # type: ignore[union-attr]


def test_a_table_that_is_not_sound_stops_what_is_made_of_it(
    lake: LakeResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("city.tables.silver.first_of", lambda rows, key, time: rows)
    twice = drive(MIDNIGHT, 0.1)
    stream(lake.root, VEHICLE_POSITIONS, [*twice, *twice], MIDNIGHT + timedelta(hours=4))
    result = run(lake, instance, raises=False)
    assert not result.success
    (check,) = [c for c in result.get_asset_check_evaluations() if not c.passed]
    assert (check.check_name, check.blocking) == ("sound", True)
    assert check.metadata["repeated keys"].value > 0


def test_faults_are_counted_in_pieces_with_the_same_result(lake: LakeResource, monkeypatch: pytest.MonkeyPatch) -> None:
    house, silver = lake.house(), table_of("silver/vehicle_positions")
    monkeypatch.setattr("city.tables.silver.first_of", lambda rows, key, time: rows)
    once, twice = drive(MIDNIGHT, 2), drive(MIDNIGHT + timedelta(hours=2), 0.5)
    stream(lake.root, VEHICLE_POSITIONS, [*once, *twice, *twice], MIDNIGHT + timedelta(hours=4))
    house.build(silver, [DAY])
    whole = count_faults(house, silver, [DAY])
    assert whole["repeated keys"] >= len(twice)
    engine = PolarsEngine()
    engine.part_rows = 20
    pieces: list[int] = []
    collect = engine.collect
    monkeypatch.setattr(engine, "collect", lambda frame: pieces.append(1) or collect(frame))
    divided = replace(house, engine=engine)
    assert count_faults(divided, silver, [DAY]) == whole
    assert len(pieces) == 1 + 2 * 3, "the count by hour, and two queries an hour"
    by_key = replace(silver, hourly_slices=False)
    assert count_faults(divided, by_key, [DAY]) == whole
    assert not (lake.root / "gold/traffic_cells_daily").exists()


def test_columns_say_what_they_mean_and_where_they_come_from() -> None:
    table = table_of("gold/traffic_cells_hourly")
    columns = {c.name: c for c in keys.table_columns(table).columns}
    assert columns["speed_mean"].description == "mean speed [km/h]"
    origins = lineage(table).deps_by_column["speed_mean"]
    assert [(dep.asset_key, dep.column_name) for dep in origins] == [(keys.table("silver/vehicle_positions"), "speed")]


def test_every_live_table_is_automated_and_must_be_fresh_and_trips_are_not() -> None:
    specs = {spec.key: spec for spec in build().resolve_all_asset_specs()}
    for name in ("silver/sensors", "silver/devices", "gold/city_conditions_daily", "gold/traffic_cells_hourly"):
        assert specs[keys.table(name)].automation_condition is not None
        assert specs[keys.table(name)].freshness_policy == FRESH
    assert specs[keys.table("gold/trip_flows_daily")].automation_condition is None


TABLES = ("gold/traffic_cells_daily", "gold/traffic_cells_hourly", "silver/vehicle_positions")


class Automation:
    """The automation sensor's evaluations, one after the other."""

    def __init__(self, instance: dg.DagsterInstance, *tables: str) -> None:
        self._defs, self._instance, self._keys, self._cursor = build(), instance, [*map(keys.table, tables)], None
        self._start = datetime.now(UTC).replace(minute=1, second=0)

    def requested(self, minutes: float) -> dict[str, set[str]]:
        """Which days of which tables are requested so many minutes after the first minute of an hour."""
        result = dg.evaluate_automation_conditions(
            defs=self._defs,
            instance=self._instance,
            asset_selection=dg.AssetSelection.assets(*self._keys),
            evaluation_time=self._start + timedelta(minutes=minutes),
            cursor=self._cursor,
        )
        self._cursor = result.cursor  # type: ignore[assignment]
        by_table = {key.to_user_string(): set(map(str, result.get_requested_partitions(key))) for key in self._keys}
        return {name: days for name, days in by_table.items() if days}


def test_what_the_stream_reports_makes_the_tables_of_that_day_be_built(
    config: Settings, instance: dg.DagsterInstance
) -> None:
    """At the tick after bronze grew, silver and gold of its day are requested together, and then no more."""
    today = datetime.now(ZoneInfo("America/New_York")).date()
    begin = datetime.combine(today - timedelta(days=3), time(12), UTC)
    stream(config.lake, VEHICLE_POSITIONS, drive(begin, 1), begin + timedelta(hours=1))
    sensor = Automation(instance, *TABLES)
    days = {str(today), str(today - timedelta(days=1))}
    assert sensor.requested(0) == {}
    for day in days:
        instance.report_runless_asset_event(dg.AssetMaterialization(keys.bronze(VEHICLE_POSITIONS), partition=day))
    assert sensor.requested(1) == {}, "the tick has not come"
    assert sensor.requested(10) == dict.fromkeys(TABLES, days)
    assert sensor.requested(11) == {}
    assert sensor.requested(20) == {}, "nothing came since"


def test_a_snapshot_that_changes_does_not_make_all_days_be_built_again(instance: dg.DagsterInstance) -> None:
    sensor = Automation(instance, "silver/sensors")
    assert sensor.requested(0) == {}
    instance.report_runless_asset_event(dg.AssetMaterialization(keys.table("silver/devices")))
    assert sensor.requested(10) == {}


def test_a_run_sees_each_table_at_one_version(lake: LakeResource, instance: dg.DagsterInstance) -> None:
    seen = []

    @dg.asset
    def first(lake: LakeResource) -> None:
        seen.append(lake.snapshot.table("bronze/vehicle_positions").count())  # type: ignore[union-attr]
        stream(lake.root, VEHICLE_POSITIONS, drive(MIDNIGHT, 1, seed=1), MIDNIGHT + timedelta(hours=4))

    @dg.asset(deps=[first])
    def second(lake: LakeResource) -> None:
        lake.house().build(table_of("silver/vehicle_positions"), [DAY])
        seen.append(lake.snapshot.table("bronze/vehicle_positions").count())  # type: ignore[union-attr]
        assert lake.house().count(table_of("silver/vehicle_positions")) == 3 * 12 * 4, "and what it wrote itself"

    for _ in range(2):
        assert dg.materialize([first, second], resources={"lake": lake}, instance=instance).success
    assert seen[0] == seen[1] < seen[2] == seen[3], "the next run sees what has come"
