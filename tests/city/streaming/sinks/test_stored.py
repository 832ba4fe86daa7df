"""The lake's tables that a view of windows is joined with: of the days that its rows may use, and read again."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from city.features.views import view_of
from city.lake.reference import update
from city.settings import Settings
from city.streaming.sinks import stored
from city.streaming.sinks.stored import StoredSources
from city.tables.schema import schema
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
    monkeypatch.setattr(stored, "_REREAD_SECONDS", -1.0)
    assert sources.frames(NOON)["road_links"].equals(link)


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
