"""The commands of New York's taxi trips, as a person uses them."""

from pathlib import Path

import polars as pl

from city.settings import Settings
from tests.commands import city, fails


def test_trips_are_ingested_once(config: Settings, data: Path) -> None:
    file = str(data / "tlc" / "trips_with_coordinates.parquet")
    assert "68,416 trips loaded, of " in city("ingest", "tlc", file)
    assert "0 trips loaded" in city("ingest", "tlc", file)


def test_wrong_arguments_are_named_in_one_line(config: Settings) -> None:
    assert "no file" in fails("ingest", "tlc", "nowhere.parquet")
    assert "no file" in fails("replay", "tlc", "/nowhere.parquet")
    assert "not a month" in fails("data", "tlc", "moon")


def test_real_trips_are_replayed(stack: Settings, data: Path) -> None:
    trips = pl.read_parquet(data / "tlc" / "trips_with_coordinates.parquet").head(20)
    file = stack.home / "few.parquet"
    trips.write_parquet(file)
    output = city("replay", "tlc", str(file), "--speed", "3000")
    assert "20 trips read" in output
    assert "positions sent" in output
