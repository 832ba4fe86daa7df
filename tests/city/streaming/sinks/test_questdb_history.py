"""What QuestDB has of the history of a new city, on a real QuestDB."""

import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from city import questdb
from city.contracts.model import Contract
from city.settings import Settings
from city.streaming.history import append_day
from city.streaming.sinks.questdb import QuestDBSink
from city_assets import history_actions
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.events import position
from tests.live import until

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def contract() -> Contract:
    name = f"q{uuid.uuid4().hex[:8]}"
    window = replace(VEHICLE_POSITIONS.windows[0], name=f"{name}_cells", topic=f"{name}.windows")
    return replace(VEHICLE_POSITIONS, name=name, topic=name, windows=(window,), partitions=1)


def append(config: Settings, contract: Contract, day: date, moments: list[datetime]) -> None:
    rows = pl.DataFrame([position(timestamp=moment, vehicle_id=f"v{n}") for n, moment in enumerate(moments)])
    append_day(config.lake, contract, day, rows)


def test_after_the_older_blocks_questdb_has_all_that_its_tables_keep(
    stack: Settings, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first set of steps sends the newest block of bronze, the second one what is older, and nothing twice."""
    boundary = NOW - timedelta(hours=30)
    moments = [NOW - timedelta(minutes=20 + 60 * n) for n in range(60)]
    newest = [moment for moment in moments if moment >= boundary]
    older = [moment for moment in moments if moment < boundary]
    kept = [moment for moment in moments if moment > NOW - contract.ttl + timedelta(minutes=1)]
    assert len(newest) < len(kept) < len(moments)

    def times(table: str, column: str) -> list[datetime]:
        rows = questdb.rows(stack.questdb, f"SELECT {column} FROM {table} ORDER BY {column}")
        return [datetime.fromisoformat(row[0]) for row in rows]

    append(stack, contract, boundary.date(), newest)
    history_actions.send_to_hot_tier(stack, contract, None)
    until(lambda: times(contract.name, "timestamp") == sorted(newest))

    append(stack, contract, boundary.date() - timedelta(days=1), older)
    sent = list[int]()
    real = QuestDBSink.send_events
    monkeypatch.setattr(
        QuestDBSink, "send_events", lambda self, rows, table: (sent.append(rows.height), real(self, rows, table))
    )
    history_actions.send_to_hot_tier(stack, contract, boundary)
    until(lambda: times(contract.name, "timestamp") == sorted(kept))
    assert sum(sent) == len(kept) - len(newest)
    assert len(times(contract.windows[0].name, "window_start")) == len(kept)
