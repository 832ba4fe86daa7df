"""Every transform of every domain on Polars and on Spark: the same tables of the same lake, the same rows."""

import shutil
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import narwhals as nw
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from city.java import jars
from city.lake.engines import Engine, engine_of
from city.lake.engines.polars import PolarsEngine
from city.lake.engines.spark import SparkEngine, is_installed
from city.lake.lakehouse import Lakehouse
from city.lake.reference import commission
from city.settings import CHECKOUT, Settings
from city.stack.embedded import settings_at
from city.tables.model import Frame, Table
from city.tables.registry import select_tables, table_of
from city.tables.schema import partition_by
from city.tables.slices import Slices
from city_assets.environment.contract import DEVICES, SENSORS
from city_assets.equipment.contract import MAINTENANCE_LOG, SENSOR_READINGS
from city_assets.equipment.limits import default_type
from city_assets.tables import is_live
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.ingest import ingest
from simulators.faults import FaultRates
from simulators.world.machines import fleet as machines
from simulators.world.payers import City
from tests.lakes import drive, house, stream
from tests.sensors import fleet
from tests.simulated import logged, paid

DAYS = [date(2026, 5, 5)]  # the day before is there too, for what looks back
BEGIN = datetime(2026, 5, 4, tzinfo=ZoneInfo("America/New_York"))


# Tables of some hundred rows: fewer tasks a commit, and no time spent on compiling what runs once.
_SMALL = {
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.databricks.delta.writeChecksumFile.enabled": "false",
    "spark.databricks.delta.incremental.commit.enabled": "false",
}
# Nor a second compiler, for a minute of one-off queries, nor a look at each of the 20,000 classes of jars whose hashes
# were checked; by its memory, Spark would clear 64 MB for each small sort.
_JAVA = (
    "-XX:TieredStopAtLevel=1 -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote "
    "-XX:+UseSerialGC -Xms768m -Xmn512m"
)


class OneWriteOfAKind(SparkEngine):
    """Spark, which reads and transforms every table, and writes as many as it takes for each kind of column under each
    partitioning. A commit of its takes seconds, so the rows of the others are collected, and written by Polars."""

    def __init__(self, config: Settings) -> None:
        super().__init__(config)
        self.written: dict[tuple[tuple[str, ...], str], str] = {}

    def replace(self, table: Table, path: Path, frames: Iterable[Frame], slices: Slices | None) -> None:
        for column in table.columns:
            self.written.setdefault((tuple(partition_by(table)), column.kind), table.id)
        if table.id in self.written.values():
            super().replace(table, path, frames, slices)
        else:
            rows = (nw.from_native(self.collect(frame).lazy()) for frame in frames)
            PolarsEngine().replace(table, path, rows, slices)


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkEngine]:
    if not is_installed():
        pytest.skip("Spark is not installed: make spark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "PYSPARK_SUBMIT_ARGS", f'--conf spark.buffer.pageSize=1m --driver-java-options "{_JAVA}" pyspark-shell'
        )
        yield from _started(tmp_path_factory)


def _started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkEngine]:
    config = settings_at(
        tmp_path_factory.mktemp("spark"), CHECKOUT / ".city" / "cache", engine="spark", spark_partitions=1
    )
    jars.fetch(config, jars.missing(config, ["spark"]))
    engine = engine_of(config)
    assert isinstance(engine, SparkEngine)
    for name, value in _SMALL.items():
        engine.session.conf.set(name, value)
    yield engine
    engine.session.stop()


def fill(lake: Path, data: Path) -> list[date]:
    """Two days of every stream, and real trips; a day of these."""
    noon = timedelta(hours=36)
    positions = drive(BEGIN, 36, every=900)
    positions += drive(BEGIN + noon, 0.5, vehicles=12, every=60)  # so that the speeds around a cell have changes
    positions += drive(BEGIN + noon + timedelta(hours=0.5), 11.5, every=900)
    stream(lake, VEHICLE_POSITIONS, positions, BEGIN + timedelta(days=3))
    sensors = fleet(FaultRates(), 0)[:40]
    stream(lake, DEVICES, [sensor.announcement(BEGIN.astimezone(UTC)) for sensor in sensors], BEGIN)
    moments = [BEGIN.astimezone(UTC) + timedelta(minutes=30 * n) for n in range(96)]
    stream(lake, SENSORS, [s.reading(m) for m in moments for s in sensors], BEGIN + timedelta(days=3))
    fill_machines(lake)
    city = City(0, faults=20.0, rate=0.01, cards=20)
    for contract, events in paid(city, BEGIN.timestamp(), (BEGIN + timedelta(days=2)).timestamp()).items():
        stream(lake, contract, events, BEGIN + timedelta(days=3))
    result = ingest(data / "tlc" / "trips_with_coordinates.parquet", lake, "America/New_York", lambda rows: None)
    return [result.first]  # type: ignore[list-item]


def fill_machines(lake: Path) -> None:
    fleet = machines(0, 6)
    moments = [BEGIN.astimezone(UTC) + timedelta(minutes=7 * n) for n in range(1, 400)]
    readings = [reading for moment in moments for machine in fleet if (reading := machine.reading(moment))]
    log = logged(fleet, moments[0].timestamp(), moments[-1].timestamp())
    stream(lake, SENSOR_READINGS, readings, BEGIN + timedelta(days=3))
    stream(lake, MAINTENANCE_LOG, log, BEGIN + timedelta(days=3))
    commission(lake, "machine_sensors", [row for machine in fleet for row in machine.ranges()])
    commission(lake, "machines", [machine.description() for machine in fleet])
    commission(lake, "machine_types", [default_type(), default_type() | {"kind": "pump", "life_cap": 500.0}])
    event = {"machine_id": fleet[0].id, "begin": BEGIN, "end": BEGIN + timedelta(hours=1), "readings": 9}
    judgement = {"peak_score": 2.0, "signal": "power", "confirmed": True, "root_cause": "leak", "resolution": None}
    commission(lake, "anomaly_events", [event | judgement])


def built(config: Settings, engine: Engine, of_trips: list[date]) -> dict[str, pl.DataFrame]:
    lake = house(config)
    lake = Lakehouse(lake.root, engine, lake.timezone, lake.country, lake.contracts, lake.tables)
    frames = {}
    for table in select_tables(["silver", "gold", "features"]):
        # Which hours have news, Spark is asked below.
        lake.build(table, DAYS if is_live(table) else of_trips, full=isinstance(engine, SparkEngine))
        frames[table.id] = pl.read_delta(str(lake.path(table.id))).sort(table.key)
    return frames


def test_both_engines_build_the_same_rows(
    config: Settings, spark: SparkEngine, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("city_assets.traffic.cell_links._LEAST_WINDOWS", 2)
    of_trips = fill(config.lake, data)
    other = config.model_copy(update={"home": tmp_path / "spark"})
    for layer in ("bronze", "reference"):
        shutil.copytree(config.lake / layer, other.lake / layer)
    sparing = OneWriteOfAKind(spark._config)
    ours, theirs = built(config, engine_of(config), of_trips), built(other, sparing, of_trips)
    assert len(ours) >= 10
    assert {by for by, _ in sparing.written} == {("day", "local_hour"), ("day",), ()}
    for name, frame in ours.items():
        assert frame.height > 0, name
        assert_frame_equal(frame, theirs[name], check_exact=False, abs_tol=2e-6, rel_tol=1e-9)


def test_spark_builds_an_hour_again_and_leaves_the_others(config: Settings, spark: SparkEngine) -> None:
    lake = house(config)
    lake = Lakehouse(lake.root, spark, lake.timezone, lake.country, lake.contracts, lake.tables)
    table = table_of("silver/vehicle_positions")
    stream(lake.root, VEHICLE_POSITIONS, drive(BEGIN, 3), BEGIN + timedelta(hours=4))
    assert lake.build(table, [BEGIN.date()]).hours == 3
    stream(lake.root, VEHICLE_POSITIONS, drive(BEGIN + timedelta(seconds=7), 0.1), BEGIN + timedelta(hours=5))
    built = lake.build(table, [BEGIN.date()])
    assert (built.hours, built.rows) == (1, 3 * 12 * 4 + 8)
