"""Traffic as it was: windows and positions from QuestDB, which has two days; hours from the gold table."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import requests

from city import local_time, questdb
from city.lake.tables import scan
from city.settings import Settings
from city.tables.model import DAY
from city.tables.schema import schema
from city.web.problems import Problem
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.live import VEHICLES
from city_assets.traffic.tables import CELLS_HOURLY

_WINDOW = VEHICLE_POSITIONS.windows[0]
_MOST_ROWS = 60_000
_TEN_MINUTES_MS = 600_000
_KEPT = VEHICLE_POSITIONS.ttl
_MEAN_SPEED = "sum(speed_mean * positions) / sum(positions)"


def windows(config: Settings, first: datetime, last: datetime, cell: str | None, minutes: int) -> dict[str, Any]:
    where = f"window_start >= {_us(first)} AND window_start < {_us(last)}" + (f" AND cell = '{cell}'" if cell else "")
    if minutes == 2:
        columns = "window_start, cell, vehicle_count, speed_mean"
        sql = f"SELECT {columns} FROM {_WINDOW.name} WHERE {where} LIMIT {_MOST_ROWS + 1}"
    else:
        told = f"window_start, cell, max(vehicle_count) vehicle_count, {_MEAN_SPEED} speed_mean"
        sampled = f"SAMPLE BY {minutes}m ALIGN TO CALENDAR"
        sql = f"SELECT {told} FROM {_WINDOW.name} WHERE {where} {sampled} LIMIT {_MOST_ROWS + 1}"
    rows = _asked(config, sql)
    return _columnar(["t", "cell", "vehicle_count", "speed_mean"], [[_ms(row[0]), *row[1:]] for row in rows])


def positions(config: Settings, first: datetime, last: datetime) -> dict[str, Any]:
    where = f"timestamp >= {_us(first)} AND timestamp < {_us(last)}"
    columns = "timestamp, vehicle_id, longitude, latitude, speed"
    rows = _asked(config, f"SELECT {columns} FROM {VEHICLE_POSITIONS.name} WHERE {where} LIMIT {2 * _MOST_ROWS}")
    return {"columns": ["t", "vehicle_id", *VEHICLES.columns], "rows": [[_ms(row[0]), *row[1:]] for row in rows]}


def hourly(config: Settings, first: datetime, last: datetime, cell: str | None) -> dict[str, Any]:
    names = ["t", "cell", "vehicle_count", "speed_mean"]
    chosen = hours(config, first, last)
    chosen = chosen.filter(pl.col("cell") == cell) if cell else chosen
    told = chosen.sort("hour", "cell").head(_MOST_ROWS + 1)
    rows = told.select(pl.col("hour").dt.epoch("ms"), "cell", "vehicles", "speed_mean").collect().rows()
    return _columnar(names, list(map(list, rows)))


def series(config: Settings, back: timedelta) -> dict[str, Any]:
    """Ten minutes at a time from QuestDB; a week earlier by the hour, from gold."""
    now, week = datetime.now(UTC), timedelta(days=7)
    since = now - back
    told = f"window_start, {_MEAN_SPEED} speed, sum(vehicle_count) / count_distinct(window_start) vehicles"
    where = f"window_start >= {_us(max(since, now - _KEPT))}"
    rows = _asked(config, f"SELECT {told} FROM {_WINDOW.name} WHERE {where} SAMPLE BY 10m ALIGN TO CALENDAR")
    before = city_by_hour(config, since - week, now - week)
    earlier = city_by_hour(config, since, now - _KEPT)
    shift = int(week.total_seconds() * 1000)
    return {
        "columns": ["t", "speed_mean", "vehicles"],
        "units": {"speed_mean": "km/h", "vehicles": "vehicles"},
        "rows": [*earlier, *with_gaps([[_ms(row[0]), *row[1:]] for row in rows], _TEN_MINUTES_MS)],
        "week_before": [[t + shift, speed, vehicles] for t, speed, vehicles in before],
    }


def with_gaps(rows: list[list[Any]], step_ms: int) -> list[list[Any]]:
    """With a row of nulls where some are missing: a line is not drawn through what is not known."""
    found: list[list[Any]] = []
    for row in rows:
        if found and row[0] > found[-1][0] + step_ms:
            found.append([found[-1][0] + step_ms] + [None] * (len(row) - 1))
        found.append(row)
    return found


def city_by_hour(config: Settings, first: datetime, last: datetime) -> list[list[Any]]:
    """Of each hour in [first, last): its start (ms since the epoch), mean speed (km/h) and vehicles; nothing is read
    where the range is empty."""
    if first >= last:
        return []
    by_hour = hours(config, first, last).group_by("hour").agg(speed(), pl.col("vehicles").sum()).sort("hour")
    return list(map(list, by_hour.select(pl.col("hour").dt.epoch("ms"), "speed_mean", "vehicles").collect().rows()))


def hours(config: Settings, first: datetime, last: datetime) -> pl.LazyFrame:
    """The gold table's rows of the hours in [first, last). Their local days come first, for the table's files are of a
    day each: the others are not opened."""
    first_day = local_time.local_day(first, config.timezone)
    last_day = local_time.local_day(last - timedelta(microseconds=1), config.timezone)
    rows = scan(config.lake / CELLS_HOURLY.id, schema(CELLS_HOURLY))
    return rows.filter(pl.col(DAY).is_between(first_day, last_day), pl.col("hour") >= first, pl.col("hour") < last)


def mean_speed(rows: pl.DataFrame) -> float:
    return float(rows.select(speed()).item())


def speed() -> pl.Expr:
    return ((pl.col("speed_mean") * pl.col("positions")).sum() / pl.col("positions").sum()).alias("speed_mean")


def _columnar(columns: list[str], rows: list[list[Any]]) -> dict[str, Any]:
    if len(rows) > _MOST_ROWS:
        raise Problem(422, f"more than {_MOST_ROWS:,} rows: ask for less time, one cell, or a coarser resolution")
    return {"columns": columns, "rows": rows}


def _asked(config: Settings, sql: str) -> list[list[Any]]:
    try:
        return questdb.rows(config.questdb, sql)
    except questdb.QuestDBError as error:
        if "does not exist" in str(error):  # nothing was streamed yet
            return []
        raise Problem(503, "QuestDB refused: the server's log has more") from error
    except requests.RequestException as error:
        raise Problem(503, f"QuestDB at {config.questdb} is away: past windows cannot be shown") from error


def _us(moment: datetime) -> int:
    return int(moment.timestamp() * 1e6)


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)
