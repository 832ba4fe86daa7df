"""A question about some hours reads these hours, however long the city has been running."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from city import local_time, questdb
from city.settings import Settings
from city.streaming.sinks.questdb import ensure_tables
from city.tables.schema import partition_by, schema
from city_assets.traffic import history
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.tables import CELLS_HOURLY

CELL = "882a100d2dfffff"


def build_days(config: Settings, first: date, days: int) -> Path:
    """A gold table of a row an hour, a file a local day."""
    columns = schema(CELLS_HOURLY)
    rows = []
    for number in range(days):
        day = first + timedelta(days=number)
        hour, end = local_time.bounds(day, config.timezone)
        while hour < end:
            beside = {"positions": 10, "vehicles": 3, "speed_mean": 20.0 + number}
            rows.append({"day": day, "hour": hour, "cell": CELL} | beside)
            hour += timedelta(hours=1)
    path = config.lake / CELLS_HOURLY.id
    path.mkdir(parents=True)
    frame = pl.DataFrame(rows, schema={name: columns[name] for name in columns})
    write_deltalake(path, frame, partition_by=partition_by(CELLS_HOURLY))
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
    path = build_days(config, date(2026, 1, 1), 120)
    assert remove_days_except(path, {date(2026, 3, 8)}) == 1
    rows = history.hourly(config, first, last, None)["rows"]
    assert [row[0] for row in rows] == [int((first + timedelta(hours=n)).timestamp() * 1000) for n in range(4)]
    assert [t for t, _, _ in history.city_by_hour(config, first, last)] == [row[0] for row in rows]


def test_no_hours_are_no_files(config: Settings) -> None:
    path = build_days(config, date(2026, 1, 1), 3)
    assert remove_days_except(path, set()) == 0
    moment = datetime(2026, 1, 2, 12, tzinfo=UTC)
    assert history.city_by_hour(config, moment, moment - timedelta(hours=5)) == []


@pytest.fixture
def plans(stack: Settings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """QuestDB's plan of each statement that is asked, instead of its rows."""
    ensure_tables(stack.questdb, VEHICLE_POSITIONS)
    found: list[str] = []

    def explain(config: Settings, sql: str) -> list[Any]:
        found.append("\n".join(row[0] for row in questdb.rows(config.questdb, f"EXPLAIN {sql}")))
        return []

    monkeypatch.setattr(history, "_query", explain)
    return found


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
