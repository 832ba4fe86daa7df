"""Past traffic: windows and positions of the last two days from QuestDB, and hours from the gold tables."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import requests

from city import local_time, questdb
from city.lake.tables import scan_table
from city.settings import Settings
from city.tables.model import DAY, Table
from city.tables.windows import window_table
from city.web.problems import Problem
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.live import VEHICLES
from city_assets.traffic.responses import PositionsResponse, SeriesResponse, SeriesRow, WindowRow, WindowsResponse
from city_assets.traffic.tables import CELLS_HOURLY

_WINDOW = VEHICLE_POSITIONS.windows[0]
_WINDOWS = window_table(VEHICLE_POSITIONS, _WINDOW)
_MOST_ROWS = 60_000
_TEN_MINUTES_MS = 600_000
_RETENTION = VEHICLE_POSITIONS.ttl
_WEIGHT = "coalesce(speeds, positions)"
_MEAN_SPEED = f"sum(speed_mean * {_WEIGHT}) / sum(CASE WHEN speed_mean IS NULL THEN 0.0 ELSE 1.0 * {_WEIGHT} END)"
"""The mean by the number of speeds. Rows of an earlier release have the number of positions only."""


def windows(config: Settings, first: datetime, last: datetime, cell: str | None, minutes: int) -> WindowsResponse:
    """Returns the cells' windows in [first, last) as columns and rows, one row for each cell and `minutes` minutes.

    Windows of 2 minutes are returned as they are stored, and merged for a longer time.

    Raises Problem if there are too many rows, or if QuestDB fails.
    """
    where = f"window_start >= {_to_us(first)} AND window_start < {_to_us(last)}" + (
        f" AND cell = '{cell}'" if cell else ""
    )
    if minutes == 2:
        columns = "window_start, cell, vehicle_count, speed_mean"
        sql = f"SELECT {columns} FROM {_WINDOW.name} WHERE {where} LIMIT {_MOST_ROWS + 1}"
    else:
        columns = f"window_start, cell, max(vehicle_count) vehicle_count, {_MEAN_SPEED} speed_mean"
        sampled = f"SAMPLE BY {minutes}m ALIGN TO CALENDAR"
        sql = f"SELECT {columns} FROM {_WINDOW.name} WHERE {where} {sampled} LIMIT {_MOST_ROWS + 1}"
    return _to_windows([(_to_ms(start), cell, count, mean) for start, cell, count, mean in _query(config, sql)])


def positions(config: Settings, first: datetime, last: datetime) -> PositionsResponse:
    """Returns the vehicles' positions in [first, last), as columns and rows. Raises Problem if QuestDB fails."""
    where = f"timestamp >= {_to_us(first)} AND timestamp < {_to_us(last)}"
    columns = "timestamp, vehicle_id, longitude, latitude, speed"
    rows = _query(config, f"SELECT {columns} FROM {VEHICLE_POSITIONS.name} WHERE {where} LIMIT {2 * _MOST_ROWS}")
    return {
        "columns": ["t", "vehicle_id", *VEHICLES.columns],
        "rows": [(_to_ms(at), vehicle, lon, lat, kmh) for at, vehicle, lon, lat, kmh in rows],
    }


def hourly(config: Settings, first: datetime, last: datetime, cell: str | None) -> WindowsResponse:
    """Returns the cells' hours in [first, last) from the gold table, as columns and rows.

    Raises Problem if there are too many rows.
    """
    chosen = hours(config, first, last)
    chosen = chosen.filter(pl.col("cell") == cell) if cell else chosen
    limited = chosen.sort("hour", "cell").head(_MOST_ROWS + 1)
    rows = limited.select(pl.col("hour").dt.epoch("ms"), "cell", "vehicles", "speed_mean").collect().rows()
    return _to_windows([(start, cell, count, mean) for start, cell, count, mean in rows])


def series(config: Settings, back: timedelta) -> SeriesResponse:
    """Returns the city's mean speed and vehicles over the time `back` until now, with those of the week before.

    The last two days have rows of ten minutes, from QuestDB. Earlier times and the week before have rows of an hour,
    from the gold table of the same windows. The vehicles of a row are the mean of its two-minute counts in both, so the
    lines can be compared. Raises Problem if QuestDB fails.
    """
    now, week = datetime.now(UTC), timedelta(days=7)
    since = now - back
    columns = f"window_start, {_MEAN_SPEED} speed, 1.0 * sum(vehicle_count) / count_distinct(window_start) vehicles"
    where = f"window_start >= {_to_us(max(since, now - _RETENTION))}"
    rows = _query(config, f"SELECT {columns} FROM {_WINDOW.name} WHERE {where} SAMPLE BY 10m ALIGN TO CALENDAR")
    before = city_by_hour(config, since - week, now - week)
    earlier = city_by_hour(config, since, now - _RETENTION)
    shift = int(week.total_seconds() * 1000)
    return {
        "columns": ["t", "speed_mean", "vehicles"],
        "units": {"speed_mean": "km/h", "vehicles": "vehicles"},
        "rows": [*earlier, *with_gaps([(_to_ms(at), mean, vehicles) for at, mean, vehicles in rows], _TEN_MINUTES_MS)],
        "week_before": [(t + shift, mean, vehicles) for t, mean, vehicles in before],
    }


def with_gaps(rows: Sequence[SeriesRow], step_ms: int) -> list[SeriesRow]:
    """Adds a row of nulls where rows are missing, so that a chart draws no line through the gap.

    A row is missing after more than `step_ms`.
    """
    filled: list[SeriesRow] = []
    for row in rows:
        if filled and row[0] > filled[-1][0] + step_ms:
            filled.append((filled[-1][0] + step_ms, None, None))
        filled.append(row)
    return filled


def city_by_hour(config: Settings, first: datetime, last: datetime) -> list[SeriesRow]:
    """Returns, for each hour in [first, last), its start (ms since the epoch), mean speed (km/h) and vehicles.

    The vehicles are the mean of the hour's two-minute counts of the whole city. The count of the vehicles that were
    there at any time of the hour is several times as large. Reads nothing if the range is empty.
    """
    if first >= last:
        return []
    start = pl.col("window_start")
    by_hour = (
        _scan_days(config, _WINDOWS, first, last)
        .filter(start >= first, start < last)
        .group_by(start.dt.truncate("1h").dt.epoch("ms").alias("hour"))
        .agg(speed(), vehicles=pl.col("vehicle_count").sum() / start.n_unique())
        .sort("hour")
    )
    return [(hour, mean, vehicles) for hour, mean, vehicles in by_hour.collect().rows()]


def hours(config: Settings, first: datetime, last: datetime) -> pl.LazyFrame:
    """Returns the gold table's rows of the hours in [first, last)."""
    hour = pl.col("hour")
    return _scan_days(config, CELLS_HOURLY, first, last).filter(hour >= first, hour < last)


def _scan_days(config: Settings, table: Table, first: datetime, last: datetime) -> pl.LazyFrame:
    """Scans the rows of the local days of [first, last).

    Each file of the table holds one day, so files of other days are not opened.
    """
    first_day = local_time.local_day(first, config.timezone)
    last_day = local_time.local_day(last - timedelta(microseconds=1), config.timezone)
    return scan_table(config.lake, table).filter(pl.col(DAY).is_between(first_day, last_day))


def mean_speed(rows: pl.DataFrame) -> float | None:
    """Returns the mean speed of gold rows (km/h), weighted by their speeds; None where no row has a speed."""
    mean: float | None = rows.select(speed()).item()
    return mean


def speed() -> pl.Expr:
    """Returns the expression of the mean speed (km/h) of the rows that have one, or null.

    The weights are the numbers of speeds. Rows of an earlier release have the number of positions only.
    """
    weight = pl.coalesce("speeds", "positions")
    weights = weight.filter(pl.col("speed_mean").is_not_null()).sum()
    mean = (pl.col("speed_mean") * weight).sum() / weights
    return pl.when(weights > 0).then(mean).alias("speed_mean")


def _to_windows(rows: list[WindowRow]) -> WindowsResponse:
    if len(rows) > _MOST_ROWS:
        raise Problem(422, f"more than {_MOST_ROWS:,} rows: ask for less time, one cell, or a coarser resolution")
    return {"columns": ["t", "cell", "vehicle_count", "speed_mean"], "rows": rows}


def _query(config: Settings, sql: str) -> list[list[Any]]:
    try:
        return questdb.rows(config.questdb, sql)
    except questdb.QuestDBError as error:
        if "does not exist" in str(error):  # no event was streamed yet
            return []
        raise Problem(503, "QuestDB refused: the server's log has more") from error
    except requests.RequestException as error:
        raise Problem(503, f"QuestDB at {config.questdb} is unavailable: past windows cannot be shown") from error


def _to_us(moment: datetime) -> int:
    return int(moment.timestamp() * 1e6)


def _to_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)
