"""`city history tlc`, as a person uses it."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from city.file_lock import file_lock
from city.lake.lakehouse import lakehouse
from city.lake.reference import update
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.history import append_day
from city.tables.registry import table_of
from city_assets import keys
from city_assets.recorded_history import Recording, table_builds
from city_assets.traffic.cell_tables import LEADERS, PAIR_CHANGES, ROAD_LINKS
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.history_console import SOURCE
from tests.commands import city, fails
from tests.lakes import append, drive, stream

TABLES = (
    "silver/vehicle_positions",
    "gold/traffic_cells",
    "gold/traffic_cells_hourly",
    "gold/traffic_cells_daily",
    "features/traffic_features",
    "features/vehicle_features",
)
HEADER = (
    "VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,trip_distance,"
    "pickup_longitude,pickup_latitude,dropoff_longitude,dropoff_latitude\n"
)


def bronze(config: Settings) -> pl.DataFrame:
    return pl.read_delta(str(config.lake / "bronze" / "vehicle_positions")).sort("_offset")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three trips of two days, as the TLC writes them, and one without a place."""
    file = tmp_path / "yellow_tripdata_2015-01.csv"
    file.write_text(
        HEADER
        + "2,2015-01-15 19:05:39,2015-01-15 19:23:42,1.59,-73.993896,40.750110,-73.974784,40.750617\n"
        + "1,2015-01-15 20:33:38,2015-01-15 20:53:28,3.30,-74.001647,40.724243,-73.994415,40.759109\n"
        + "1,2015-01-16 20:33:38,2015-01-16 20:43:41,1.80,-73.963340,40.802787,-73.951820,40.824413\n"
        + "1,2015-01-16 20:33:38,2015-01-16 20:43:41,1.80,0,0,0,0\n"
    )
    return file


def test_trips_become_positions_windows_and_features(config: Settings, file: Path) -> None:
    output = city("history", "tlc", str(file))
    assert "4 trips read, 3 to make history of" in output
    assert "1 rejected: outside the area" in output
    assert "50 positions of 2 days appended to bronze/vehicle_positions" in output
    assert "10 tables built" in output
    rows = bronze(config)
    assert (rows.height, rows["vehicle_id"].n_unique()) == (19 + 20 + 11, 3)
    assert rows["speed"][0] == pytest.approx(1.59 * 1.609344 / (1083 / 3600), abs=0.01)
    assert rows["timestamp"][0] == datetime(2015, 1, 16, 0, 5, 39, tzinfo=UTC)
    for name in TABLES:
        table = pl.read_delta(str(config.lake / name))
        assert set(table["day"]) == {date(2015, 1, 15), date(2015, 1, 16)}, name
    windows = pl.read_delta(str(config.lake / "gold/traffic_cells"))
    assert windows["positions"].sum() == 50
    assert not (config.lake / "gold/location_traffic").exists(), "tables of other domains are not built"
    assert list((config.home / "history").glob("trips-*")) == []


def test_a_day_is_appended_once(config: Settings, file: Path) -> None:
    city("history", "tlc", str(file), "--last", "2015-01-15")
    assert bronze(config).height == 39
    output = city("history", "tlc", str(file), str(file))
    assert "11 positions of 1 day appended" in output
    assert "earlier import already, and left as it is: 2015-01-15" in output
    assert bronze(config).height == 50
    versions = {name: lakehouse(config).rows_by_day(table_of(name)) for name in TABLES}
    output = city("history", "tlc", str(file))
    assert "0 positions of 0 days appended" in output
    assert "all tables have these days already" in output, "also those that have no rows, of so few windows"
    assert bronze(config).height == 50
    assert versions == {name: lakehouse(config).rows_by_day(table_of(name)) for name in TABLES}


def test_a_table_without_rows_is_built_again_when_its_input_changes(
    config: Settings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tables of cells' changes are empty: two trips have no change around them. Then people link the cells."""
    city("history", "tlc", str(file))
    recording = Recording(SOURCE, VEHICLE_POSITIONS, [date(2015, 1, 15), date(2015, 1, 16)], lambda day: bronze(config))
    assert table_builds(config, recording, []) == []
    update(config.lake, ROAD_LINKS, lambda _: pl.DataFrame({"cell": ["a"], "neighbour": ["b"]}), "a road")
    built = {build.table.id for build in table_builds(config, recording, [])}
    assert built == {PAIR_CHANGES.id, LEADERS.id}, "and what is made from it"
    city("history", "tlc", str(file))
    assert table_builds(config, recording, []) == []
    assert {build.table.id for build in table_builds(config, recording, recording.days)} > {PAIR_CHANGES.id}


def test_an_import_that_broke_off_after_bronze_builds_the_tables(
    config: Settings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config.home / "history" / "trips-killed" / "2015-01-14").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr("city_assets.traffic.history_console.table_builds", lambda *_: [])
        city("history", "tlc", str(file))
    assert "10 tables built" in city("history", "tlc", str(file))
    assert pl.read_delta(str(config.lake / "silver/vehicle_positions")).height == 50
    assert list((config.home / "history").glob("trips-*")) == []


def test_a_day_that_comes_before_another_changes_the_features_that_look_back(config: Settings, tmp_path: Path) -> None:
    file = tmp_path / "trips.csv"
    ends = "-73.9938,40.7501,-73.9938,40.7502"
    rows = [f"1,2015-01-{day} {clock}:00,0.50,{ends}\n" for day, clock in ((15, "23:50:00,2015-01-16 00:00"),)]
    rows += [f"1,2015-01-16 00:0{n}:00,2015-01-16 00:0{n + 1}:00,0.10,{ends}\n" for n in (0, 2)]
    file.write_text(HEADER + "".join(rows))
    city("history", "tlc", str(file), "--first", "2015-01-16")

    def lags() -> list[float | None]:
        features = pl.read_delta(str(config.lake / "features/traffic_features"))
        return features.filter(pl.col("day") == date(2015, 1, 16)).sort("as_of")["speed_lag_1"].to_list()

    assert lags()[0] is None
    city("history", "tlc", str(file))
    assert lags()[0] is not None


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_real_trips_of_either_kind_of_file(config: Settings, data: Path, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"trips.{ending}"
    trips = pl.read_parquet(data / "tlc" / "trips_with_coordinates.parquet").head(200)
    trips.write_parquet(file) if ending == "parquet" else trips.write_csv(file, datetime_format="%Y-%m-%d %H:%M:%S")
    output = city("history", "tlc", str(file))
    assert "200 trips read" in output
    assert bronze(config)["vehicle_id"].n_unique() > 180
    assert bronze(config)["speed"].median() > 8  # type: ignore[operator]


def test_trips_of_every_layout_are_taken_with_zones_at_their_centres(config: Settings, data: Path) -> None:
    files = sorted((data / "tlc").glob("yellow_tripdata_*.csv"))
    output = city("history", "tlc", *map(str, files))
    assert "have zones instead of coordinates and are placed at the zones' centres" in output
    assert set(bronze(config)["timestamp"].dt.year()) == {*range(2009, 2021)} - {2011, 2018}


def test_old_days_are_partitions(config: Settings, file: Path) -> None:
    city("history", "tlc", str(file))
    keys.reload_days()
    try:
        assert keys.live_days().get_first_partition_key() == "2015-01-15"
    finally:
        keys.reload_days()


def test_what_is_no_file_of_trips_is_named(config: Settings, file: Path, data: Path, tmp_path: Path) -> None:
    def fault(name: str, content: bytes = b"") -> str:
        (tmp_path / name).write_bytes(content)
        return fails("history", "tlc", str(file), str(tmp_path / name))

    assert "no file /nowhere.csv" in fails("history", "tlc", str(file), "/nowhere.csv")
    assert "is a folder: name the files in it" in fails("history", "tlc", str(tmp_path))
    assert "other.csv is not a file of yellow-taxi trips" in fault("other.csv", b"a,b\n1,2\n")
    assert "empty.csv cannot be read as CSV" in fault("empty.csv")
    assert "broken.parquet cannot be read as Parquet" in fault("broken.parquet", b"x" * 300)
    zones = fault("zones.csv", (data / "tlc" / "yellow_tripdata_2019-01.csv").read_bytes())
    assert "zones, not coordinates" in zones
    assert "--zones" in zones
    assert not (config.lake / "bronze").exists()


def test_no_usable_trip_is_an_error_with_the_reasons(config: Settings, tmp_path: Path) -> None:
    tomorrow = datetime.now() + timedelta(days=1)
    future = f"{tomorrow:%Y-%m-%d %H:%M:%S},{tomorrow + timedelta(minutes=9):%Y-%m-%d %H:%M:%S}"
    file = tmp_path / "trips.csv"
    file.write_text(
        HEADER
        + f"2,{future},1.59,-73.993896,40.750110,-73.974784,40.750617\n"
        + "2,2015-01-15 19:05:39,2015-01-15 19:23:42,1.59,0,0,-73.974784,40.750617\n"
    )
    fault = fails("history", "tlc", str(file))
    assert "no trip is left" in fault
    assert "1 in the future" in fault
    assert "1 outside the area" in fault
    file.write_text(HEADER)
    assert "0 trips read" in fails("history", "tlc", str(file))


def test_a_day_of_another_source_is_named_with_the_fix(config: Settings, file: Path) -> None:
    day = date(2015, 1, 16)
    moment = datetime(2015, 1, 16, 15, tzinfo=UTC)
    beside = {"latitude": 40.7, "longitude": -74.0, "speed": 20.0, "trip_id": "t"}
    append_day(config.lake, VEHICLE_POSITIONS, day, pl.DataFrame([{"vehicle_id": "v", "timestamp": moment, **beside}]))
    fault = fails("history", "tlc", str(file))
    assert "2015-01-16 has events of another source" in fault
    assert "2015-01-15" not in fault
    assert "--first and --last" in fault
    assert bronze(config).height == 1
    assert "39 positions of 1 day" in city("history", "tlc", str(file), "--last", "2015-01-15")


def test_a_day_of_the_stream_is_named(config: Settings, tmp_path: Path) -> None:
    begin = datetime.now(UTC) - timedelta(days=3)
    stream(config.lake, VEHICLE_POSITIONS, drive(begin, 0.2), begin + timedelta(hours=1))
    file = tmp_path / "trips.csv"
    local = begin.astimezone(keys.local_time.zone(config.timezone)).date()
    file.write_text(HEADER + f"2,{local} 01:05:39,{local} 01:23:42,1.59,-73.9938,40.7501,-73.9747,40.7506\n")
    assert f"{local} has events of another source" in fails("history", "tlc", str(file))


def test_the_stream_goes_on_after_an_import(config: Settings, file: Path) -> None:
    begin = datetime.now(UTC) - timedelta(hours=1)
    writer = BronzeStream(config.lake, VEHICLE_POSITIONS)
    append(writer, VEHICLE_POSITIONS, drive(begin, 0.2), begin + timedelta(hours=1))
    before = bronze(config).height
    city("history", "tlc", str(file))
    append(writer, VEHICLE_POSITIONS, drive(begin + timedelta(minutes=20), 0.2), begin + timedelta(hours=1))
    assert bronze(config).height > before + 50


def test_two_imports_exclude_each_other(config: Settings, file: Path) -> None:
    (config.home / "history").mkdir()
    with file_lock(config.home / "history" / "recorded"):
        assert "another import of recorded history is running" in fails("history", "tlc", str(file))
