"""The online store against the tables."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl
import pytest

from city.features.online import online_store, push
from city.features.views import view_of
from city.lake.faults import count_faults
from city.settings import Settings
from city.tables.registry import select_tables
from city_assets.features import compare, online_checks, online_features
from city_assets.traffic.contract import VEHICLE_POSITIONS
from resources.lake import LakeResource
from tests.events import iso, position
from tests.lakes import drive, house, stream

DAY = date(2026, 5, 4)
BEGIN = datetime(2026, 5, 4, 8, tzinfo=ZoneInfo("America/New_York"))


@pytest.fixture
def built(config: Settings) -> pl.LazyFrame:
    lake = house(config)
    stream(lake.root, VEHICLE_POSITIONS, drive(BEGIN, 1, vehicles=20, every=30), BEGIN + timedelta(hours=2))
    for table in select_tables(["traffic_features", "vehicle_features"]):
        lake.build(table, [DAY])
    return pl.scan_delta(str(lake.path("features/traffic_features")))


def test_the_asset_fills_the_store_from_history(config: Settings, built: pl.LazyFrame) -> None:
    result = dg.materialize([online_features])
    assert result.success
    shown = result.asset_materializations_for_node(online_features.node_def.name)[0].metadata
    cells = built.select(pl.col("cell").n_unique()).collect().item()
    assert shown["traffic_features"].value == cells
    assert len(online_store(config).keys("traffic_features", 10_000)) == cells


def test_what_is_served_is_compared_with_the_table(config: Settings, built: pl.LazyFrame) -> None:
    view, store = view_of("traffic_features"), online_store(config)
    assert compare(view, store, [built]) == (0, [])
    push(store, view, built.collect())
    compared, different = compare(view, store, [built])
    assert compared > 20
    assert different == []
    # Of a cell whose newest window is not the last of the table, which is not compared.
    newest = built.group_by("cell").agg(pl.col("as_of").max()).collect()
    cell = newest.filter(pl.col("as_of") < newest["as_of"].max() - timedelta(minutes=1))["cell"][0]  # type: ignore[operator]
    wrong = built.collect().with_columns(speed_mean=pl.col("speed_mean") + (pl.col("cell") == cell).cast(pl.Float64))
    push(store, view, wrong)
    different = compare(view, store, [built])[1]
    assert [(entry["entity"], entry["feature"]) for entry in different] == [(cell, "speed_mean")]


def test_a_vehicle_that_reports_no_speed_counts_and_changes_no_mean(config: Settings) -> None:
    lake, begin = house(config), BEGIN.astimezone(UTC)
    seen = [
        ("v1", 40.75, 30.0),
        ("v2", 40.75, 10.0),
        ("v3", 40.75, None),
        ("v4", 40.60, None),
    ]
    events = [
        position(vehicle_id=vehicle, latitude=latitude, longitude=-73.98, speed=speed, timestamp=iso(begin))
        for vehicle, latitude, speed in seen
    ]
    stream(lake.root, VEHICLE_POSITIONS, events, BEGIN + timedelta(hours=2))
    names = ["traffic_cells", "traffic_cells_hourly", "traffic_cells_daily", "traffic_features", "vehicle_features"]
    for table in select_tables(names):
        lake.build(table, [DAY])

    def read(table: str, *columns: str) -> list[tuple[object, ...]]:
        return pl.read_delta(str(lake.path(table))).sort(columns[0], descending=True).select(columns).rows()

    assert read("gold/traffic_cells", "positions", "speeds", "speed_mean") == [(3, 2, 20.0), (1, 0, None)]
    for table in ("gold/traffic_cells_hourly", "gold/traffic_cells_daily"):
        rows = read(table, "positions", "speeds", "vehicles", "speed_mean", "congestion")
        assert rows == [(3, 2, 3, 20.0, "medium"), (1, 0, 1, None, None)]
    assert read("features/traffic_features", "positions", "speed_mean", "speed_recent") == [(3, 20.0, 20.0)]
    assert read("features/vehicle_features", "vehicle_id", "positions", "speed_mean")[:2] == [
        ("v4", 1, None),
        ("v3", 1, None),
    ]
    assert all(count_faults(lake, table, [DAY]) == {} for table in select_tables(names))


def test_a_difference_fails_the_check(config: Settings, built: pl.LazyFrame) -> None:
    view = view_of("traffic_features")
    push(online_store(config), view, built.collect().with_columns(pl.col("speed_mean") + 1))
    check = next(c for c in online_checks() if next(iter(c.check_keys)).name == f"{view.name}_as_in_table")
    lake = LakeResource(path=str(config.lake))
    result = check(lake=lake)
    assert isinstance(result, dg.AssetCheckResult)
    assert not result.passed
    assert result.metadata["compared"].value > 20  # type: ignore[operator]
