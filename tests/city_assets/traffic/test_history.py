"""A question about some hours reads these hours, however long the city has been running."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from city import local_time, questdb
from city.lake.lakehouse import lakehouse
from city.settings import Settings
from city.streaming.sinks.questdb import ensure_tables
from city.tables.model import Table
from city.tables.registry import select_tables, table_of
from city.tables.schema import partition_by, schema
from city_assets.traffic import history
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.tables import CELLS_HOURLY
from city_assets.traffic.today import today
from tests.events import iso
from tests.lakes import stream
from tests.live import until

CELL = "882a100d2dfffff"
WINDOWS = table_of("gold/traffic_cells")


def build_days(config: Settings, table: Table, first: date, days: int) -> Path:
    """A gold table of a row an hour, a file a local day."""
    assert table.time
    columns = schema(table)
    rows = []
    for number in range(days):
        day = first + timedelta(days=number)
        hour, end = local_time.bounds(day, config.timezone)
        while hour < end:
            beside = {"positions": 10, "vehicles": 3, "vehicle_count": 3, "speed_mean": 20.0 + number}
            rows.append({"day": day, table.time: hour, "cell": CELL} | beside)
            hour += timedelta(hours=1)
    path = config.lake / table.id
    path.mkdir(parents=True)
    frame = pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], schema=columns)
    write_deltalake(path, frame, partition_by=partition_by(table))
    return path


def remove_days_except(path: Path, days: set[date]) -> int:
    """Removes the files of all other days, so that whoever opens one of them fails. Returns how many are left."""
    files = list(map(Path, DeltaTable(path).file_uris()))
    kept = [file for file in files if file.parent.name in {f"day={day}" for day in days}]
    for file in set(files) - set(kept):
        file.unlink()
    return len(kept)


@pytest.mark.parametrize("timezone", ["UTC", "America/New_York", "Pacific/Auckland"])
def test_hours_are_read_from_the_files_of_their_local_days(config: Settings, timezone: str) -> None:
    config = config.model_copy(update={"timezone": timezone})
    first = local_time.bounds(date(2026, 3, 8), timezone)[1] - timedelta(hours=4)
    last = first + timedelta(hours=4)
    for table in (CELLS_HOURLY, WINDOWS):
        path = build_days(config, table, date(2026, 1, 1), 120)
        assert remove_days_except(path, {date(2026, 3, 8)}) == 1
    rows = history.hourly(config, first, last, None)["rows"]
    assert [row[0] for row in rows] == [int((first + timedelta(hours=n)).timestamp() * 1000) for n in range(4)]
    assert [t for t, _, _ in history.city_by_hour(config, first, last)] == [row[0] for row in rows]


def test_no_hours_are_no_files(config: Settings) -> None:
    path = build_days(config, WINDOWS, date(2026, 1, 1), 3)
    assert remove_days_except(path, set()) == 0
    moment = datetime(2026, 1, 2, 12, tzinfo=UTC)
    assert history.city_by_hour(config, moment, moment - timedelta(hours=5)) == []


def test_the_week_before_counts_the_vehicles_of_two_minutes_as_the_day_does(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each vehicle is there for one window of the hour, so the hour has 30 vehicles, and no two minutes more than 2."""
    hour = (datetime.now(UTC) - timedelta(days=7, hours=3)).replace(minute=0, second=0, microsecond=0)
    events = [
        {
            "vehicle_id": f"v{number}",
            "timestamp": iso(hour + timedelta(minutes=2 * window, seconds=30)),
            "latitude": 40.75 + 0.03 * (number % 2),
            "longitude": -73.98,
            "speed": 20.0 + 10.0 * (number % 2),
        }
        for number, window in enumerate(sorted([*range(20), *range(10)]))
    ]
    stream(config.lake, VEHICLE_POSITIONS, events, hour + timedelta(hours=1))
    days = sorted({local_time.local_day(hour + timedelta(hours=n), config.timezone) for n in range(2)})
    for table in select_tables([WINDOWS.id, CELLS_HOURLY.id]):
        lakehouse(config).build(table, days)
    monkeypatch.setattr(history, "_query", lambda *_: [])
    ((start, speed, vehicles),) = history.series(config, timedelta(hours=24))["week_before"]
    assert start == int((hour + timedelta(days=7)).timestamp() * 1000)
    assert (speed, vehicles) == (25.0, 30 / 20)


def test_the_weight_of_a_mean_speed_is_the_number_of_speeds() -> None:
    """Of 100 positions in the first row, one has a speed. A row of an earlier release has the positions only."""
    rows = pl.DataFrame({"speed_mean": [10.0, 30.0, None], "speeds": [1, 3, 0], "positions": [100, 3, 50]})
    assert history.mean_speed(rows) == 25.0
    assert history.mean_speed(rows.with_columns(speeds=pl.Series([1, None, None], dtype=pl.Int64))) == 25.0
    assert history.mean_speed(rows.tail(1)) is None


def test_tables_of_an_earlier_release_without_the_number_of_speeds_are_read(config: Settings) -> None:
    first = datetime(2026, 1, 2, 12, tzinfo=UTC)
    for table in (WINDOWS, CELLS_HOURLY):
        path = build_days(config, table, date(2026, 1, 1), 3)
        write_deltalake(path, pl.read_delta(str(path)).drop("speeds"), mode="overwrite", schema_mode="overwrite")
        assert "speeds" not in pl.read_delta(str(path)).columns
    assert [mean for _, mean, _ in history.city_by_hour(config, first, first + timedelta(hours=2))] == [21.0, 21.0]
    assert today(config, date(2026, 1, 2))[0].value == 21.0


def test_the_day_has_the_mean_of_the_two_minute_counts_too(stack: Settings) -> None:
    ensure_tables(stack.questdb, VEHICLE_POSITIONS)
    start = (datetime.now(UTC) - timedelta(hours=41)).replace(second=0, microsecond=0)
    start -= timedelta(minutes=start.minute % 10)
    values = ", ".join(
        f"({int((start + timedelta(minutes=2 * n)).timestamp() * 1e6)}, '{CELL}', {count}, {count}, {speeds}, {mean})"
        for n, (count, speeds, mean) in enumerate(((1, 1, 10.0), (2, 0, "null"), (3, 0, "null"), (2, 1, 30.0)))
    )
    columns = "window_start, cell, vehicle_count, positions, speeds, speed_mean"
    questdb.execute(stack.questdb, f"INSERT INTO traffic_cells ({columns}) VALUES {values}")
    moment = int(start.timestamp() * 1000)
    until(lambda: moment in [t for t, _, _ in history.series(stack, timedelta(hours=42))["rows"]])
    rows = history.series(stack, timedelta(hours=42))["rows"]
    assert [row for row in rows if row[0] == moment] == [(moment, 20.0, 2.0)]


@pytest.fixture
def plans(stack: Settings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """QuestDB's plan of each statement that is asked, instead of its rows."""
    ensure_tables(stack.questdb, VEHICLE_POSITIONS)
    explained: list[str] = []

    def explain(config: Settings, sql: str) -> list[Any]:
        explained.append("\n".join(row[0] for row in questdb.rows(config.questdb, f"EXPLAIN {sql}")))
        return []

    monkeypatch.setattr(history, "_query", explain)
    return explained


def test_questdb_scans_the_interval_that_is_asked_for(stack: Settings, plans: list[str]) -> None:
    first = datetime(2026, 3, 7, 22, tzinfo=UTC)
    last = first + timedelta(hours=1)
    for cell in (None, CELL):
        for minutes in (2, 10):
            history.windows(stack, first, last, cell, minutes)
    history.positions(stack, first, last)
    history.series(stack, timedelta(hours=24))
    assert len(plans) == 6
    for plan in plans[:-1]:
        assert '"2026-03-07T22:00:00.000000Z","2026-03-07T22:59:59.999999Z"' in plan.replace("(", "").replace(")", "")
    assert "MAX" in plans[-1]  # from a moment on
    assert all("Interval" in plan and "Frame forward scan" not in plan for plan in plans), plans
