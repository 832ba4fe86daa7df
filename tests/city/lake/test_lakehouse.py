"""Building tables: incremental and whole give the same rows, whatever comes late, twice or broken."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from polars.testing import assert_frame_equal

from city.lake.engines.polars import PolarsEngine
from city.lake.lakehouse import Lakehouse
from city.lake.snapshot import Snapshot
from city.lake.tables import ForeignTable, open_table
from city.settings import Settings
from city.tables import Column, Source, Table, TableError
from city.tables.registry import table_of
from city_assets.traffic.contract import VEHICLE_POSITIONS
from simulators.world.payers import City
from tests.lakes import drive, house, rows, stream
from tests.simulated import paid

DAY = date(2026, 5, 4)
NEW_YORK = ZoneInfo("America/New_York")
MIDNIGHT = datetime(2026, 5, 4, tzinfo=NEW_YORK)
SILVER = "silver/vehicle_positions"
TABLES = (SILVER, "gold/traffic_cells_hourly", "gold/traffic_cells_daily")
KEYS = {SILVER: ("vehicle_id", "timestamp"), TABLES[1]: ("hour", "cell"), TABLES[2]: ("day", "cell")}


def build(lake: Lakehouse, *days: date, full: bool = False) -> None:
    for name in TABLES:
        lake.build(table_of(name), days, full)


def test_a_day_built_as_it_comes_has_the_rows_of_a_backfill(config: Settings, tmp_path: Path) -> None:
    lake = house(config)
    events = drive(MIDNIGHT, 24)
    late = [events.pop(number) for number in (400, 300, 5)]
    for begin in range(0, len(events), 200):
        stream(lake.root, VEHICLE_POSITIONS, events[begin : begin + 200], MIDNIGHT + timedelta(hours=25))
        build(lake, DAY)
    stream(lake.root, VEHICLE_POSITIONS, late, MIDNIGHT + timedelta(hours=30))
    build(lake, DAY)
    as_it_came = {name: rows(lake, name, *KEYS[name]) for name in TABLES}
    build(lake, DAY, full=True)
    for name in TABLES:
        assert_frame_equal(rows(lake, name, *KEYS[name]), as_it_came[name])
    silver = as_it_came[SILVER]
    assert silver.height == silver.unique(["vehicle_id", "timestamp"]).height == 24 * 12 * 4
    assert set(silver["day"]) == {DAY}
    assert as_it_came[TABLES[1]]["positions"].sum() == silver.height


def test_only_the_hours_with_news_are_built_again(config: Settings) -> None:
    lake, table = house(config), table_of(SILVER)
    stream(lake.root, VEHICLE_POSITIONS, drive(MIDNIGHT, 3), MIDNIGHT + timedelta(hours=4))
    assert lake.build(table, [DAY]).hours == 3
    stream(
        lake.root,
        VEHICLE_POSITIONS,
        drive(MIDNIGHT + timedelta(hours=1, seconds=7), 0.1),
        MIDNIGHT + timedelta(hours=5),
    )
    assert lake.build(table, [DAY]).hours == 1
    before = lake.count(table)
    built = lake.build(table, [DAY])
    assert (built.hours, lake.count(table)) == (0, before), "nothing was new"


def test_a_table_that_is_built_in_parts_has_the_same_rows(config: Settings) -> None:
    lake, begin = house(config), MIDNIGHT - timedelta(hours=3)
    for contract, events in paid(
        City(0, faults=20.0, rate=0.01, cards=40), begin.timestamp(), begin.timestamp() + 30 * 3600
    ).items():
        stream(lake.root, contract, events, MIDNIGHT + timedelta(days=3))
    days = [DAY - timedelta(days=1), DAY]
    silver, features = table_of("silver/payments"), table_of("features/payment_features")
    lake.build(silver, days)
    lake.build(features, [DAY])
    whole = {table.id: rows(lake, table.id, *table.key) for table in (silver, features)}
    engine = PolarsEngine()
    hours = whole[silver.id].group_by("day", "local_hour").len()
    engine.part_rows = limit = int(hours["len"].median())  # type: ignore[arg-type]
    for table, is_full in ((silver, True), (features, False)):
        replace(lake, engine=engine).build(table, [DAY], is_full)
        assert_frame_equal(rows(lake, table.id, *table.key), whole[table.id])
    files = pl.DataFrame(DeltaTable(lake.path(features.id)).get_add_actions(flatten=True))
    assert files.height > 5, "there was one part only"
    # Of silver, an hour is a file, unless it has many rows itself.
    by_hour = pl.DataFrame(DeltaTable(lake.path(silver.id)).get_add_actions(flatten=True))
    counts = by_hour.group_by("partition.day", "partition.local_hour").agg(pl.len(), rows=pl.col("num_records").sum())
    assert set(counts.filter(pl.col("rows") < 0.9 * limit)["len"]) == {1}
    assert counts.filter(pl.col("rows") > 1.1 * limit)["len"].min() == 2
    assert whole[features.id]["payments_known"].max() == 8


def test_a_run_that_read_before_another_built_does_not_take_its_rows_away(config: Settings) -> None:
    lake, table = house(config), table_of(SILVER)
    stream(lake.root, VEHICLE_POSITIONS, drive(MIDNIGHT, 1), MIDNIGHT + timedelta(hours=4))
    early = lake.pinned()
    early.read("bronze/vehicle_positions")
    stream(lake.root, VEHICLE_POSITIONS, drive(MIDNIGHT + timedelta(hours=1), 1), MIDNIGHT + timedelta(hours=4))
    built = lake.build(table, [DAY])
    again = early.build(table, [DAY], full=True)
    assert again.rows == built.rows == 2 * 12 * 4
    assert again.sources["bronze/vehicle_positions"] == built.sources["bronze/vehicle_positions"]


def test_the_first_of_two_events_of_a_vehicle_and_a_time_stays(config: Settings) -> None:
    lake = house(config)
    first = drive(MIDNIGHT, 0.1, vehicles=1)[0]
    stream(lake.root, VEHICLE_POSITIONS, [first, first | {"speed": 99.0}], MIDNIGHT + timedelta(hours=1))
    build(lake, DAY)
    stream(lake.root, VEHICLE_POSITIONS, [first | {"speed": 77.0}], MIDNIGHT + timedelta(hours=2))
    build(lake, DAY)
    assert rows(lake, SILVER, "timestamp")["speed"].to_list() == [first["speed"]]


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 8), 23), (date(2026, 11, 1), 25), (date(2026, 5, 4), 24)])
def test_a_local_day_has_all_its_hours_when_the_clocks_change(config: Settings, day: date, hours: int) -> None:
    lake = house(config)
    begin = datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).astimezone(UTC) - timedelta(hours=1)
    stream(lake.root, VEHICLE_POSITIONS, drive(begin, hours + 2, every=1800), begin + timedelta(days=2))
    build(lake, day)
    hourly = rows(lake, TABLES[1], "hour")
    assert hourly["hour"].n_unique() == hours
    assert hourly["local_hour"].n_unique() == min(hours, 24)
    assert rows(lake, SILVER, "timestamp").height == hours * 2 * 4


def test_an_empty_day_is_built_empty(config: Settings) -> None:
    lake = house(config)
    build(lake, DAY)
    assert [lake.count(table_of(name)) for name in TABLES] == [0, 0, 0]


def test_days_are_told_by_the_calendar(config: Settings) -> None:
    lake = house(config)
    fourth = datetime(2026, 7, 3, 7, tzinfo=NEW_YORK)  # the Fourth is a Saturday in 2026, so the third is a holiday
    stream(lake.root, VEHICLE_POSITIONS, drive(fourth, 0.1), fourth + timedelta(hours=1))
    stream(lake.root, VEHICLE_POSITIONS, drive(fourth - timedelta(days=1), 0.1), fourth + timedelta(hours=1))
    build(lake, date(2026, 7, 2), date(2026, 7, 3))
    days = rows(lake, SILVER, "timestamp").group_by("day", maintain_order=True).first()
    assert days["weekday"].to_list() == [4, 5]
    assert days["rush_hour"].to_list() == [True, False]
    assert days["holiday"][0] is None
    assert "Independence Day" in days["holiday"][1]


def test_a_day_before_the_table_begins_is_refused(config: Settings) -> None:
    with pytest.raises(TableError, match="begins with 2009-01-01; it has no 2008-12-31"):
        house(config).build(table_of(SILVER), [date(2008, 12, 31)])


def test_a_foreign_table_is_refused_and_left_alone(config: Settings) -> None:
    lake = house(config)
    write_deltalake(lake.path(SILVER), pl.DataFrame({"mine": [1]}))
    with pytest.raises(ForeignTable, match=r"unexpected columns \['mine'\].*Move it away"):
        build(lake, DAY)
    assert pl.read_delta(str(lake.path(SILVER)))["mine"].to_list() == [1]


def test_a_broken_file_is_named_and_what_was_built_stays(config: Settings) -> None:
    lake = house(config)
    stream(lake.root, VEHICLE_POSITIONS, drive(MIDNIGHT, 2), MIDNIGHT + timedelta(hours=4))
    build(lake, DAY)
    before = rows(lake, SILVER, "timestamp", "vehicle_id")
    stream(lake.root, VEHICLE_POSITIONS, drive(MIDNIGHT + timedelta(hours=2), 2), MIDNIGHT + timedelta(hours=4))
    broken = max(lake.path("bronze/vehicle_positions").glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    broken.write_bytes(b"PAR1 this is not what it was PAR1")
    with pytest.raises(TableError, match=r"silver/vehicle_positions.*bronze/vehicle_positions.*restore"):
        build(lake, DAY)
    assert_frame_equal(rows(lake, SILVER, "timestamp", "vehicle_id"), before)


def test_a_source_that_nobody_declares_is_named_with_those_that_are(config: Settings) -> None:
    orphan = Table(
        name="orphan",
        layer="gold",
        description="",
        key=("a",),
        columns=(Column(name="a", kind="integer", description=""),),
        sources={"b": Source(table="silver/bycicles")},
        transform=lambda b: b,
        daily=False,
    )
    with pytest.raises(TableError, match="made from 'silver/bycicles', which nobody declares; known: .*silver/sensors"):
        house(config).build(orphan)


def test_a_transform_without_a_declared_column_is_told_which(config: Settings) -> None:
    table = replace(table_of(TABLES[2]), transform=lambda positions: positions.select("day", "cell"))
    with pytest.raises(
        TableError, match="gives no column congestion, positions, speed_mean, speed_std, speeds, vehicles"
    ):
        house(config).build(table, [DAY])


def test_two_days_are_built_without_touching_a_third(config: Settings) -> None:
    lake = house(config)
    days = [DAY + timedelta(days=n) for n in range(3)]
    stream(lake.root, VEHICLE_POSITIONS, drive(MIDNIGHT, 72, every=3600), MIDNIGHT + timedelta(days=4))
    build(lake, *days)
    assert lake.rows_by_day(table_of(SILVER)) == dict.fromkeys(days, 24 * 4)
    build(lake, *days[1:], full=True)
    assert lake.rows_by_day(table_of(SILVER)) == dict.fromkeys(days, 24 * 4)


def test_a_column_is_added_in_place_and_old_rows_have_null(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write_deltalake(open_table(path, {"a": pl.Int64()}), pl.DataFrame({"a": [1]}), mode="append")
    wider = {"a": pl.Int64(), "b": pl.String()}
    with pytest.raises(ForeignTable, match=r"missing \['b'\]"):
        open_table(path, wider)
    write_deltalake(open_table(path, wider, may_add=["b"]), pl.DataFrame({"a": [2], "b": ["x"]}), mode="append")
    assert pl.read_delta(str(path)).sort("a").rows() == [(1, None), (2, "x")]


def test_the_newest_row_of_each_key_is_read_over_days(config: Settings) -> None:
    """Of a vehicle that has stopped too, but not from before the span; whatever day the newest row of another has."""
    lake = house(config)
    for vehicles, day in ((4, 0), (3, 1), (2, 2)):
        begin = MIDNIGHT + timedelta(days=day, hours=20)
        stream(lake.root, VEHICLE_POSITIONS, drive(begin, 1, vehicles=vehicles), MIDNIGHT + timedelta(days=9))
    lake.build(table_of(SILVER), [DAY + timedelta(days=n) for n in range(3)])
    silver = rows(lake, SILVER, "timestamp")
    newest = silver.unique("vehicle_id", keep="last", maintain_order=True).sort("vehicle_id")
    for hours, vehicles in ((60, 4), (30, 3), (2, 2)):
        read_rows = Snapshot(lake.root).newest_of_each(SILVER, ["vehicle_id"], "timestamp", timedelta(hours=hours))
        assert read_rows is not None
        assert_frame_equal(read_rows.sort("vehicle_id"), newest.head(vehicles), check_column_order=False)
    assert Snapshot(lake.root).newest_of_each("silver/none", ["vehicle_id"], "timestamp", timedelta(hours=1)) is None
