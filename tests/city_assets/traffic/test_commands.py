"""The commands of New York's taxi trips, as a person uses them."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from city.settings import Settings
from city_assets.traffic.console import describe
from city_assets.traffic.replay import load
from tests.city_assets.traffic.test_ingest import MONTH as JUNE
from tests.commands import city, fails


def test_trips_are_ingested_once(config: Settings, data: Path) -> None:
    file = str(data / "tlc" / "trips_with_coordinates.parquet")
    assert "68,416 trips loaded, of " in city("ingest", "tlc", file)
    assert "0 trips loaded" in city("ingest", "tlc", file)


@pytest.mark.parametrize("name", ["X.PARQUET", "X.CSV", "x.csv.gz", "X.CSV.GZ"])
def test_a_file_of_any_suffix_is_ingested(config: Settings, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name.endswith("PARQUET"):
        pl.read_csv(JUNE.encode(), try_parse_dates=True).write_parquet(file)
    else:
        file.write_bytes(gzip.compress(JUNE.encode()) if name.lower().endswith("gz") else JUNE.encode())
    assert "2 trips loaded, of 2016-06-09 to 2016-06-10" in city("ingest", "tlc", str(file))
    assert "2 trips read, 2 to replay" in describe(load([file], config.timezone))[0]


def test_a_revised_month_is_counted_once(config: Settings, tmp_path: Path) -> None:
    """The same name in another folder, as a month is that was downloaded again."""
    first, revised = (tmp_path / name / "yellow_tripdata_2016-06.csv" for name in ("first", "revised"))
    for file, content in ((first, JUNE), (revised, JUNE.replace(".80", ".90"))):
        file.parent.mkdir()
        file.write_text(content)
    days = ("--first", "2016-06-09", "--last", "2016-06-10")
    for file in (first, revised, revised):
        city("ingest", "tlc", str(file))
        city("build", "trip_flows_daily", *days)
        flows = pl.read_delta(str(config.lake / "gold/trip_flows_daily")).sort("day")
        assert flows["trips"].to_list() == [1, 1]
    assert flows["distance_mean"][0] == pytest.approx(0.9 * 1.609344)


def test_a_day_of_a_wrong_clock_is_not_among_the_days_to_build(config: Settings, tmp_path: Path) -> None:
    file = tmp_path / "yellow_tripdata_2016-06.csv"
    wrong = JUNE.splitlines()[1]
    file.write_text(JUNE + wrong.replace("2016-06", "2041-11") + "\n" + wrong.replace("2016-06", "2008-12") + "\n")
    output = city("ingest", "tlc", str(file))
    assert "4 trips loaded, of 2016-06-09 to 2016-06-10" in output
    assert "city build trip_features trip_flows_daily --first 2016-06-09 --last 2016-06-10" in output


def test_times_that_nobody_can_read_are_refused(config: Settings, tmp_path: Path) -> None:
    file = tmp_path / "yellow_tripdata_2016-06.csv"
    file.write_text(JUNE.replace("2016-06-", "June "))
    for command in ("ingest", "replay"):
        message = fails(command, "tlc", str(file))
        assert "column 'tpep_pickup_datetime' has times like 'June 09 21:10:00'; give YYYY-MM-DD hh:mm:ss" in message


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
