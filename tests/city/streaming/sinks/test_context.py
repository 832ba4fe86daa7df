"""The windows of other contracts that a view's rows are joined with."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from city.features.views import view_of
from city.settings import Settings
from city.streaming.sinks import context as module
from city.streaming.sinks.context import Context
from city_assets.environment.contract import SENSORS
from tests.events import iso, reading
from tests.lakes import stream

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def rain(minute: float, value: float = 1.5) -> dict[str, Any]:
    at = iso(NOON + minute * MINUTE)
    return reading(timestamp=at, sensor_id="downtown_precipitation_1", type="precipitation", value=value, unit="mm/h")


def context(config: Settings) -> Context:
    """The rain of a view, of a topic with the one partition that tests fill."""
    made = Context(view_of("traffic_features"), config.lake)
    made._sources = {name: (replace(c, partitions=1), window) for name, (c, window) in made._sources.items()}
    return made


def minutes_of(made: Context, minute: float) -> list[float]:
    """The beginnings of the windows with rain that are known at a minute after noon."""
    (frame,) = made.frames(NOON + minute * MINUTE).values()
    assert "day" in frame.columns
    wet = frame.filter(pl.col("precipitation_mean") > 0)
    return sorted((start - NOON) / MINUTE for start in wet["window_start"])


def test_a_window_that_bronze_gets_late_is_read_again(config: Settings) -> None:
    made = context(config)
    stream(config.lake, SENSORS, [rain(-4)], NOON + timedelta(hours=1))
    assert minutes_of(made, 10) == [-5]
    stream(config.lake, SENSORS, [rain(1), rain(4.9)], NOON + timedelta(hours=1))
    assert minutes_of(made, 10.4) == [-5], "read again too soon"
    assert minutes_of(made, 10.6) == [-5, 0]
    assert minutes_of(context(config), 10.6) == [-5, 0]


def test_a_window_whose_events_are_all_there_is_read_once(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    made = context(config)
    stream(config.lake, SENSORS, [rain(minute) for minute in range(-12, 12)], NOON + timedelta(hours=1))
    assert minutes_of(made, 12) == [-15, -10, -5, 0]
    monkeypatch.setattr(module, "scan", lambda path: pytest.fail("it was whole"))
    assert minutes_of(made, 13.5) == [-15, -10, -5, 0]


def test_a_partition_that_is_behind_makes_a_window_a_partial_one(config: Settings) -> None:
    made = context(config)
    made._sources = {name: (replace(c, partitions=2), window) for name, (c, window) in made._sources.items()}
    stream(config.lake, SENSORS, [rain(minute) for minute in range(-12, 12)], NOON + timedelta(hours=1))
    assert minutes_of(made, 12) == [-15, -10, -5, 0]
    stream(config.lake, SENSORS, [rain(2.5, value=9.0)], NOON + timedelta(hours=1))
    before = made.frames(NOON + 12 * MINUTE)
    after = made.frames(NOON + 13 * MINUTE)
    assert str(before) != str(after)
