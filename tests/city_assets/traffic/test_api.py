"""What traffic's routes make of cells: hotspots, the day in words, a map for Kepler.gl."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import polars as pl
from deltalake import write_deltalake

from city.engines.polars import PolarsEngine
from city.settings import Settings
from city.tables.schema import schema
from city_assets.traffic import history
from city_assets.traffic.api import today, worst
from city_assets.traffic.kepler import kepler_map
from city_assets.traffic.tables import CELLS_HOURLY
from city_assets.traffic.transforms import FREE_KMH, SLOW_KMH, congestion, level, levels

CELL = "882a100d2dfffff"


def test_a_speed_has_the_level_that_tables_and_labels_give_it() -> None:
    speeds = [0.0, SLOW_KMH - 0.1, SLOW_KMH, FREE_KMH - 0.1, FREE_KMH, 90.0, None]
    frame = pl.DataFrame({"speed_mean": speeds})
    engine = PolarsEngine()
    told = engine.collect(engine.local(frame).with_columns(congestion()))
    expected = ["high", "high", "medium", "medium", "low", "low", None]
    assert told["congestion"].to_list() == expected
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


def hour(moment: datetime, speed: float, positions: int) -> dict[str, Any]:
    return {
        "day": moment.date(),
        "hour": moment,
        "local_hour": moment.hour,
        "weekday": moment.isoweekday(),
        "rush_hour": False,
        "cell": CELL,
        "positions": positions,
        "vehicles": 3,
        "speed_mean": speed,
        "speed_std": 1.0,
        "congestion": level(speed),
    }


def test_the_day_is_told_in_words_beside_a_week_ago(config: Settings) -> None:
    config = config.model_copy(update={"timezone": "UTC"})
    city: Any = SimpleNamespace(config=config)
    assert "Nothing is known" in today(city)[0]["sentence"]
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    rows = [hour(midnight, 20.0, 100), hour(midnight + timedelta(hours=1), 10.0, 300)]
    rows += [hour(midnight - timedelta(days=7), 25.0, 200)]
    path = config.lake / CELLS_HOURLY.id
    path.mkdir(parents=True)
    write_deltalake(path, pl.DataFrame(rows, schema=schema(CELLS_HOURLY)))
    speed, positions = today(city)
    assert (speed["value"], speed["before"]) == (12.5, 25.0)
    assert "12.5 km/h, 50% slower than a week ago" in speed["sentence"]
    assert "slowest was it from 1:00, with 10.0 km/h. 1 cell was" in speed["sentence"]
    assert (positions["value"], positions["before"]) == (400, 200)
    hours = history.hourly(config, midnight, midnight + timedelta(hours=2), None)
    assert [row[3] for row in hours["rows"]] == [20.0, 10.0]
    assert history.hourly(config, midnight, midnight + timedelta(hours=2), "882a100d2bfffff")["rows"] == []


def test_a_kepler_map_has_its_data_and_the_layer_that_shows_it() -> None:
    rows = [[1_800_000_000_000, CELL, 7, 9.5]]
    made = kepler_map(["t", "cell", "vehicle_count", "speed_mean"], rows)
    data = made["datasets"][0]["data"]
    assert data["allData"] == [["2027-01-15 08:00:00", CELL, 7, 9.5, "high"]]
    assert [field["name"] for field in data["fields"]] == ["time", "cell", "vehicle_count", "speed_mean", "congestion"]
    assert [field["type"] for field in data["fields"]] == ["timestamp", "string", "integer", "real", "string"]
    layer = made["config"]["config"]["visState"]["layers"][0]
    assert layer["type"] == "hexagonId"
    assert layer["config"]["dataId"] == data["id"]
    assert layer["config"]["columns"]["hex_id"] in [field["name"] for field in data["fields"]]
    assert made["info"]["app"] == "kepler.gl"
