"""What traffic's routes make of cells: levels, hotspots, history, a map for Kepler.gl."""

from typing import Any

import polars as pl

from city.lake.engines.polars import PolarsEngine
from city_assets.traffic import history
from city_assets.traffic.api import worst
from city_assets.traffic.kepler import kepler_map
from city_assets.traffic.live import CELLS
from city_assets.traffic.responses import CellRow, SeriesRow
from city_assets.traffic.transforms import FREE_KMH, SLOW_KMH, congestion, level, levels

CELL = "882a100d2dfffff"


def test_a_speed_has_the_level_that_tables_and_labels_give_it() -> None:
    speeds = [0.0, SLOW_KMH - 0.1, SLOW_KMH, FREE_KMH - 0.1, FREE_KMH, 90.0, None]
    frame = pl.DataFrame({"speed_mean": speeds})
    engine = PolarsEngine()
    classified = engine.collect(engine.local(frame).with_columns(congestion()))
    expected = ["high", "high", "medium", "medium", "low", "low", None]
    assert classified["congestion"].to_list() == expected
    assert [level(speed) for speed in speeds] == expected
    assert frame.select(levels(pl.col("speed_mean"), pl)).to_series().to_list() == expected


def test_the_worst_cells_come_first() -> None:
    cells: list[dict[str, Any]] = [
        {"cell": "few", "vehicle_count": 2, "speed_mean": 2.0},
        {"cell": "many", "vehicle_count": 30, "speed_mean": FREE_KMH - 5},
        {"cell": "free", "vehicle_count": 99, "speed_mean": FREE_KMH},
        {"cell": "unknown", "vehicle_count": 1, "speed_mean": None},
    ]
    assert [cell["cell"] for cell in worst(cells, 5)] == ["many", "few"]
    assert len(worst(cells, 1)) == 1
    assert worst(cells, 1)[0]["lost"] == 150


def test_a_cells_row_is_declared_with_the_columns_of_its_layer() -> None:
    assert set(CellRow.__annotations__) == set(CELLS.header)


def test_what_is_not_known_is_a_gap() -> None:
    rows: list[SeriesRow] = [(0, 1.0, 2), (10, 1.0, 2), (40, 1.0, 2), (50, 1.0, 2)]
    filled = history.with_gaps(rows, 10)
    assert filled == [*rows[:2], (20, None, None), *rows[2:]]


def test_a_kepler_map_has_its_data_and_the_layer_that_shows_it() -> None:
    made = kepler_map([(1_800_000_000_000, CELL, 7, 9.5)])
    data = made["datasets"][0]["data"]
    assert data["allData"] == [["2027-01-15 08:00:00", CELL, 7, 9.5, "high"]]
    assert [field["name"] for field in data["fields"]] == ["time", "cell", "vehicle_count", "speed_mean", "congestion"]
    assert [field["type"] for field in data["fields"]] == ["timestamp", "string", "integer", "real", "string"]
    layer = made["config"]["config"]["visState"]["layers"][0]
    assert layer["type"] == "hexagonId"
    assert layer["config"]["dataId"] == data["id"]
    assert layer["config"]["columns"]["hex_id"] in [field["name"] for field in data["fields"]]
    assert made["info"]["app"] == "kepler.gl"
