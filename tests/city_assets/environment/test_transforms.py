"""What the environment's gold tables say of readings that a person can count."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from city.settings import Settings
from city.tables.registry import table_of
from city_assets.environment.contract import DEVICES, SENSORS
from tests.events import iso, reading
from tests.lakes import house, rows, stream

NOON = datetime(2026, 5, 4, 16, tzinfo=UTC)  # 12 o'clock in New York
DAYS = [date(2026, 5, 4), date(2026, 5, 5)]


def at(
    moment: datetime, number: int, value: float, kind: str = "traffic", unit: str = "vehicles/min"
) -> dict[str, Any]:
    return reading(timestamp=iso(moment), sensor_id=f"downtown_{kind}_{number}", type=kind, value=value, unit=unit)


def announcement(number: int) -> dict[str, Any]:
    return {
        "timestamp": iso(NOON),
        "sensor_id": f"downtown_traffic_{number}",
        "type": "traffic",
        "location": "downtown",
        "latitude": 40.75,
        "longitude": -73.98,
        "unit": "vehicles/min",
        "normal_minimum": 0.0,
        "normal_maximum": 100.0,
        "firmware": "1.0.0",
    }


@pytest.fixture
def built(config: Settings) -> Any:
    """Two days: sensor 1 steady, sensor 2 with a gap of two hours and readings that move up by 30 on the second."""
    lake = house(config)
    steps = [timedelta(minutes=15 * n) for n in range(16)]
    events = []
    for shift, day in enumerate((NOON, NOON + timedelta(days=1))):
        events += [at(day + step, 1, 40 + n % 2) for n, step in enumerate(steps)]
        events += [at(day + step, 2, 50 + 30 * shift + n % 2) for n, step in enumerate(steps) if not 4 <= n < 12]
        events += [at(day, 1, 21.5, "temperature", "°C")]
    stream(lake.root, DEVICES, [announcement(1)], NOON)
    stream(lake.root, SENSORS, events, NOON + timedelta(days=2))
    for name in ("silver/devices", "silver/sensors"):
        lake.build(table_of(name), DAYS)
    for name in ("gold/city_conditions_hourly", "gold/city_conditions_daily", "gold/sensor_health_daily"):
        lake.build(table_of(name), DAYS)
    return lake


def test_readings_are_placed_where_their_sensor_stands(built: Any) -> None:
    silver = rows(built, "silver/sensors", "sensor_id", "timestamp")
    placed = silver.filter(pl.col("latitude").is_not_null())
    assert placed["sensor_id"].unique().to_list() == ["downtown_traffic_1"]
    assert placed["cell"].str.len_chars().unique().to_list() == [15]
    assert silver.height == 2 * (16 + 8 + 1)


def test_conditions_are_means_of_each_quantity(built: Any) -> None:
    hourly = rows(built, "gold/city_conditions_hourly", "hour")
    first = hourly.row(0, named=True)
    assert (first["location"], first["readings"], first["local_hour"]) == ("downtown", 9, 12)
    assert (first["traffic_mean"], first["temperature_mean"], first["humidity_mean"]) == (45.5, 21.5, None)
    daily = rows(built, "gold/city_conditions_daily", "day")
    assert daily.select("traffic_min", "traffic_max").rows() == [(40.0, 51.0), (40.0, 81.0)]


def test_a_sensors_health_tells_its_gap_its_uptime_and_its_drift(built: Any) -> None:
    health = rows(built, "gold/sensor_health_daily", "day", "sensor_id").filter(pl.col("type") == "traffic")
    assert health["uptime"].to_list() == [1.0, 0.5] * 2
    assert health["longest_gap_seconds"].to_list() == [900, 9 * 900] * 2
    steady, gappy = health.filter(pl.col("day") == DAYS[1])["drift"].to_list()
    assert health.filter(pl.col("day") == DAYS[0])["drift"].null_count() == 2
    assert gappy > 5 > 0 > steady, "its offset moved by many spreads of its readings"
