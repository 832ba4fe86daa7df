"""The lake's tables that a view of windows is joined with: of the days that its rows may use, and read again."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from city.contracts.schema import bronze_schema
from city.features import references
from city.features.events import EventRows
from city.features.views import view_of
from city.lake.reference import update
from city.settings import Settings
from city.streaming.sinks.stored import StoredSources
from city.tables.schema import schema
from city_assets.equipment.contract import SENSOR_READINGS
from city_assets.equipment.limits import DEFAULT_LIMITS, default_type
from city_assets.equipment.tables import MACHINE_TYPES
from city_assets.traffic.cell_tables import LEADERS, ROAD_LINKS
from tests.lakes import house

NOON = datetime(2026, 5, 4, 16, tzinfo=UTC)


def test_tables_that_were_never_filled_have_no_rows(config: Settings) -> None:
    frames = StoredSources(view_of("traffic_features"), config).frames(NOON)
    assert {name: frame.height for name, frame in frames.items()} == {"leaders": 0, "usual": 0, "road_links": 0}
    assert frames["leaders"].schema == schema(LEADERS)


def test_the_days_before_are_read_and_changes_take_effect(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = house(config)
    days = [date(2026, 5, 4) - timedelta(days=ago) for ago in range(5)]
    rows = pl.DataFrame({"cell": "a", "neighbour": "b", "weight": 0.5, "day": days})
    lake.open(LEADERS)
    rows.write_delta(str(lake.path(LEADERS.id)), mode="append")
    sources = StoredSources(view_of("traffic_features"), config)
    assert sorted(sources.frames(NOON)["leaders"]["day"]) == sorted(days[:3])
    link = pl.DataFrame({"cell": ["a"], "neighbour": ["b"]})
    update(config.lake, ROAD_LINKS, lambda _: link, "a road")
    assert sources.frames(NOON)["road_links"].is_empty(), "not read again yet"
    monkeypatch.setattr(references, "REREAD_SECONDS", -1.0)
    assert sources.frames(NOON)["road_links"].equals(link)


def test_the_features_of_events_and_of_windows_read_a_changed_reference_table_at_the_same_time(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    presses = EventRows(view_of("machine_features"), SENSOR_READINGS, config)
    cells = StoredSources(view_of("traffic_features"), config)
    types = pl.DataFrame([{**default_type(), "life_cap": 7.0}], schema=schema(MACHINE_TYPES))
    link = pl.DataFrame({"cell": ["a"], "neighbour": ["b"]})
    readings = pl.DataFrame([{"machine_id": "m", "timestamp": NOON}], schema=bronze_schema(SENSOR_READINGS))

    def read() -> tuple[float, int]:
        return presses.compute(readings)["life_cap_hours"][0], cells.frames(NOON)["road_links"].height

    assert read() == (DEFAULT_LIMITS.cap, 0)
    update(config.lake, MACHINE_TYPES, lambda _: types, "another cap")
    update(config.lake, ROAD_LINKS, lambda _: link, "a road")
    assert read() == (DEFAULT_LIMITS.cap, 0), "not read again yet"
    monkeypatch.setattr(references, "REREAD_SECONDS", -1.0)
    assert read() == (7.0, 1)


def test_the_newest_built_days_are_read_and_no_older_ones(config: Settings) -> None:
    """The fourth of May uses the first, because nothing was built on the days between."""
    lake = house(config)
    days = [date(2026, 5, 1), date(2026, 4, 30), date(2026, 4, 29), date(2026, 4, 20)]
    lake.open(LEADERS)
    rows = pl.DataFrame({"cell": "a", "neighbour": "b", "weight": 0.5, "day": days})
    rows.write_delta(str(lake.path(LEADERS.id)), mode="append")

    def days_at(moment: datetime) -> list[date]:
        return StoredSources(view_of("traffic_features"), config).frames(moment)["leaders"]["day"].to_list()

    assert days_at(NOON) == days[:1]
    assert sorted(days_at(NOON - timedelta(days=3))) == sorted(days[:3])
    assert days_at(NOON + timedelta(days=9)) == []
