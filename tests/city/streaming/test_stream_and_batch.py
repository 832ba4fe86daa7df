"""A day through the stream and the same day from bronze: the same windows, row for row."""

import json
import random
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from city import questdb
from city.contracts.model import Contract
from city.local_time import local_day
from city.settings import Settings
from city.tables.windows import window_table
from city_assets.environment.contract import SENSORS
from city_assets.traffic.contract import VEHICLE_POSITIONS
from simulators.faults import FaultRates
from tests.lakes import drive, house
from tests.live import send, streaming, until
from tests.sensors import fleet

NEW_YORK = ZoneInfo("America/New_York")


def shuffled(events: list[dict], lateness: timedelta, seed: int = 3) -> list[bytes]:  # type: ignore[type-arg]
    """Most in order, some a little late, some so late that their window is closed."""
    chance = random.Random(seed)

    def place(number: int) -> float:
        late = chance.choices((0, chance.uniform(0, 60), chance.uniform(0, 400)), (90, 7, 3))[0]
        return number + late

    order = sorted(range(len(events)), key=place)
    return [json.dumps(events[number]).encode() for number in order]


def renamed(contract: Contract) -> Contract:
    """Under names of the test's own, so that nobody else's events are among its."""
    name = f"d{uuid.uuid4().hex[:8]}"
    windows = tuple(replace(w, name=f"{name}_{w.name}", topic=None) for w in contract.windows)
    return replace(contract, name=name, topic=name, windows=windows)


@pytest.mark.parametrize("declared", [VEHICLE_POSITIONS, SENSORS], ids=lambda c: c.name)
def test_the_windows_of_a_day_are_the_same_either_way(stack: Settings, declared: Contract) -> None:
    contract = renamed(declared)
    day = local_day(datetime.now(UTC), "America/New_York") - timedelta(days=3)
    begin = datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).astimezone(UTC)
    if declared is SENSORS:
        moments = [begin + timedelta(minutes=5 * n, seconds=7) for n in range(288)]
        events = [sensor.reading(moment) for moment in moments for sensor in fleet(FaultRates(), 0)[:40:3]]
    else:
        events = drive(begin, 24, every=60, vehicles=3)
        events = [event | ({"speed": None} if n % 4 == 0 else {}) for n, event in enumerate(events)]
    messages = shuffled(events, contract.windows[0].lateness)
    with streaming(contract, stack) as job:
        for first in range(0, len(messages), 700):
            send(stack, contract, *messages[first : first + 700])
            # In batches of their own: a slow machine would take all as one, and nothing would be late.
            until(lambda n=first: job.summary()[0]["rows"] == len(messages[: n + 700]))  # type: ignore[misc]
        until(lambda: not any(job.summary()[0]["sinks_behind"].values()))
        assert job.summary()[0]["too_late"] > 0, "or the test is of no lateness"
    lake = replace(house(stack), contracts={contract.name: contract})
    for window in contract.windows:
        table = window_table(contract, window)
        lake.build(table, [day])
        batch = pl.read_delta(str(lake.path(table.id))).drop("day").sort(window.by, "window_start")
        names = [name for name in batch.columns if name != "window_start"]
        sql = f"SELECT window_start, {', '.join(names)} FROM {window.name}"
        until(lambda sql=sql, n=batch.height: len(questdb.rows(stack.questdb, sql)) >= n)  # type: ignore[misc]
        streamed = pl.DataFrame(
            questdb.rows(stack.questdb, sql),
            schema={"window_start": pl.String(), **{n: batch.schema[n] for n in names}},
            orient="row",
        ).with_columns(pl.col("window_start").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us", time_zone="UTC"))
        streamed = streamed.select(batch.columns).sort(window.by, "window_start")
        assert batch.height > 20, window.name
        assert_frame_equal(streamed, batch, check_exact=False, rel_tol=1e-9, abs_tol=1e-9)
