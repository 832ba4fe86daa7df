"""Cold storage, forgetting, and maintenance beside a running stream."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import requests
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from polars.testing import assert_frame_equal

from city import questdb
from city.contracts.model import ContractError
from city.features.online import online_store
from city.lake.cold import archive
from city.lake.days import first_day
from city.lake.location import cold_location
from city.lake.snapshot import Snapshot
from city.lake.tables import open_table
from city.privacy.erase import LOG, find, forget
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.sinks import questdb_rebuild
from city.streaming.sinks.questdb import QuestDBSink
from city.streaming.sinks.questdb_rebuild import copies, is_symbol
from city.tables import TableError
from city.tables.registry import select_tables, table_of
from city_assets.environment.contract import DEVICES
from city_assets.maintenance import maintain
from city_assets.traffic.contract import VEHICLE_POSITIONS
from simulators.faults import FaultRates
from tests.lakes import drive, house, stream
from tests.live import fresh, send, streaming, until
from tests.sensors import fleet

NOW = datetime(2026, 5, 10, 15, tzinfo=UTC)
KEEP = timedelta(days=3)


def bronze(config: Settings) -> pl.DataFrame:
    return pl.read_delta(str(config.lake / "bronze/vehicle_positions"))


def cold(config: Settings) -> pl.DataFrame:
    return pl.read_delta(f"{config.cold_path}/vehicle_positions")


def test_what_is_old_moves_to_cold_storage_once(config: Settings) -> None:
    events = drive(NOW - timedelta(days=8), 24 * 8, every=7200)
    stream(config.lake, VEHICLE_POSITIONS, events, NOW)
    before = bronze(config)
    first = archive(VEHICLE_POSITIONS, config.lake, cold_location(config), KEEP, NOW)
    assert first.rows == first.deleted > 0
    again = archive(VEHICLE_POSITIONS, config.lake, cold_location(config), KEEP, NOW)
    assert (again.rows, again.deleted) == (0, 0)
    assert archive(VEHICLE_POSITIONS, config.lake, cold_location(config), KEEP, NOW + timedelta(days=1)).rows > 0
    assert bronze(config)["timestamp"].min() >= NOW - KEEP - timedelta(hours=15)  # type: ignore[operator]
    both = pl.concat([bronze(config), cold(config).drop("year")]).sort("_offset")
    assert both.equals(before.sort("_offset")), "every row is in one of the two"
    file = next(Path(config.cold_path).rglob("year=2026/*.parquet"))
    assert pl.read_parquet(file)["vehicle_id"].is_sorted()


def test_a_crash_between_writing_and_deleting_doubles_nothing(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(config.lake, VEHICLE_POSITIONS, drive(NOW - timedelta(days=8), 24, every=7200), NOW)
    rows = bronze(config).height
    with monkeypatch.context() as patched:
        patched.setattr("city.lake.cold._seconds", lambda moment: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            archive(VEHICLE_POSITIONS, config.lake, cold_location(config), KEEP, NOW)
    assert (bronze(config).height, cold(config).height) == (rows, rows)
    archived = Snapshot(config.lake, cold_location(config)).archived(VEHICLE_POSITIONS)
    assert archived is not None
    assert archived.count() == 0, "nobody reads what bronze still has"
    archive(VEHICLE_POSITIONS, config.lake, cold_location(config), KEEP, NOW)
    assert (bronze(config).height, cold(config).height) == (0, rows)


def test_archived_days_are_built_like_others(config: Settings) -> None:
    stream(config.lake, VEHICLE_POSITIONS, drive(NOW - timedelta(days=8), 24 * 8, every=7200), NOW)
    days = [(NOW - timedelta(days=n)).date() for n in range(9)]
    first = first_day(config.lake, [VEHICLE_POSITIONS], config.timezone)
    tables = select_tables(["silver/vehicle_positions", "traffic_cells_hourly", "traffic_cells"])
    before = {}
    for table in tables:
        house(config).build(table, days, full=True)
        before[table.id] = pl.read_delta(str(config.lake / table.id)).sort(table.key)
    archive(VEHICLE_POSITIONS, config.lake, cold_location(config), KEEP, NOW)
    for table in tables:
        house(config).build(table, days, full=True)
        assert_frame_equal(pl.read_delta(str(config.lake / table.id)).sort(table.key), before[table.id])
    assert first_day(config.lake, [VEHICLE_POSITIONS], config.timezone) == first, "they stay partitions"


def test_the_newest_state_of_a_device_is_known_when_it_is_archived(config: Settings) -> None:
    moment = NOW - timedelta(days=8)
    sensor = fleet(FaultRates(), 0)[0]
    stream(config.lake, DEVICES, [sensor.announcement(moment)], NOW)
    archive(DEVICES, config.lake, cold_location(config), KEEP, NOW)
    house(config).build(table_of("silver/devices"))
    assert pl.read_delta(str(config.lake / "silver/devices"))["sensor_id"].to_list() == [sensor.id]


def test_what_was_archived_before_the_log_said_so_counts(config: Settings) -> None:
    stream(config.lake, VEHICLE_POSITIONS, drive(NOW - timedelta(days=8), 24 * 7, every=7200), NOW)
    rows, path = bronze(config), config.lake / "bronze/vehicle_positions"
    old = rows.filter(pl.col("timestamp") < NOW - timedelta(days=6))
    done = CommitProperties(app_transactions=[Transaction(f"archive/{VEHICLE_POSITIONS.topic}", 1)])
    target, written = f"{config.cold_path}/vehicle_positions", old.with_columns(year=pl.col("timestamp").dt.year())
    write_deltalake(target, written, partition_by=["year"], commit_properties=done)
    DeltaTable(path).delete(f"timestamp < '{NOW - timedelta(days=6):%Y-%m-%dT%H:%M:%SZ}'")
    for _ in range(2):
        archived = Snapshot(config.lake, cold_location(config)).archived(VEHICLE_POSITIONS)
        assert archived is not None
        assert bronze(config).height + archived.count() == rows.height
        archive(VEHICLE_POSITIONS, config.lake, cold_location(config), KEEP, NOW)


def test_archived_rows_that_are_elsewhere_are_named(config: Settings) -> None:
    stream(config.lake, VEHICLE_POSITIONS, drive(NOW - timedelta(days=8), 24, every=7200), NOW)
    archive(VEHICLE_POSITIONS, config.lake, cold_location(config), KEEP, NOW)
    stream(config.lake, VEHICLE_POSITIONS, drive(NOW - timedelta(days=7), 24, every=7200), NOW)
    moved = config.model_copy(update={"cold": str(config.home / "elsewhere")})
    with pytest.raises(TableError, match="point CITY_COLD at the folder that has them"):
        house(moved).build(table_of("silver/vehicle_positions"), [(NOW - timedelta(days=7)).date()])
    with pytest.raises(FileNotFoundError, match="point CITY_COLD"):
        archive(VEHICLE_POSITIONS, moved.lake, cold_location(moved), KEEP, NOW)
    assert bronze(config).height > 0


def test_compaction_bounds_the_files_beside_a_writer(tmp_path: Path) -> None:
    schema = {"a": pl.Int64()}
    open_table(tmp_path / "t", schema)
    stop = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        table = DeltaTable(tmp_path / "t")
        while not stop.is_set():
            write_deltalake(table, pl.DataFrame({"a": [written]}), mode="append")
            written += 1

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        for _ in range(5):
            until(lambda: len(DeltaTable(tmp_path / "t").file_uris()) > 30)
            before = set(DeltaTable(tmp_path / "t").file_uris())
            assert maintain(DeltaTable(tmp_path / "t"), 24)["files_before"] > 30
            # Of what stood before. How much the writer has added since depends on the machine.
            assert not before & set(DeltaTable(tmp_path / "t").file_uris())
    finally:
        stop.set()
        thread.join(20)
    assert pl.read_delta(str(tmp_path / "t"))["a"].sort().to_list() == list(range(written))


def in_questdb(stack: Settings) -> int:
    return int(questdb.rows(stack.questdb, "SELECT count() FROM vehicle_positions")[0][0])


def different(stack: Settings) -> int:
    """Rows of bronze that QuestDB keeps apart; other tests have sent events to the topic too."""
    return bronze(stack).unique(["vehicle_id", "timestamp"]).height


def test_a_vehicle_is_forgotten_in_every_tier(stack: Settings) -> None:
    send(stack, VEHICLE_POSITIONS, *fresh(40), b'{"vehicle_id": "v7", "speed": "fast"}', b"\xff")
    questdb.execute(stack.questdb, "DROP TABLE IF EXISTS vehicle_positions")
    with streaming(VEHICLE_POSITIONS, stack) as job:
        until(lambda: job.summary()[0]["rows"] >= 40 and job.summary()[0]["lag"] == 0)
        until(lambda: in_questdb(stack) == different(stack))
    old = drive(datetime.now(UTC) - timedelta(days=8), 1, vehicles=8)
    stream(stack.lake, VEHICLE_POSITIONS, old, datetime.now(UTC))
    archive(VEHICLE_POSITIONS, stack.lake, cold_location(stack), KEEP)
    lake = house(stack)
    for table in select_tables(["silver/vehicle_positions", "vehicle_features"]):
        lake.build(table, [datetime.now(UTC).date() - timedelta(days=n) for n in (1, 0)], full=True)
    online_store(stack).write("vehicle_features", ["v7"], [1], [b"{}"])
    counts = find(stack, "vehicle", "v7")
    assert set(counts) >= {
        "bronze/vehicle_positions",
        "cold/vehicle_positions",
        "quarantine/vehicle_positions",
        "silver/vehicle_positions",
        "features/vehicle_features",
        "questdb/vehicle_positions",
        "online/vehicle_features",
    }
    done = forget(stack, "vehicle", "v7")
    assert done.problems == []
    assert pl.read_delta(str(stack.lake / "quarantine/vehicle_positions")).height >= 1, "what is not about it stays"
    until(lambda: find(stack, "vehicle", "v7") == {})
    files = [*stack.lake.rglob("*.parquet"), *Path(stack.cold_path).rglob("*.parquet")]
    assert files
    for file in files:
        frame = pl.read_parquet(file, hive_partitioning=False)
        assert "vehicle_id" not in frame.columns or "v7" not in set(frame["vehicle_id"]), file
    until(lambda: in_questdb(stack) == different(stack))
    (line,) = (stack.home / LOG).read_text().splitlines()
    record = json.loads(line)
    assert record["rows"]["questdb/vehicle_positions"] >= 1
    assert "v7" not in line, "the record is not a trace of whom it is about"


def files_with(servers: Settings, name: str) -> list[str]:
    """The files of the QuestDB server that have a text, in either of the encodings that it writes."""
    spelled = (name.encode(), name.encode("utf-16-le"))
    sizes = []
    for file in sorted((servers.home / "questdb").rglob("*")):
        with suppress(FileNotFoundError):  # the server deletes what it does not need any more
            if file.is_file() and any(text in file.read_bytes() for text in spelled):
                sizes.append(str(file))
    return sizes


def test_an_id_is_in_no_file_of_questdb_though_the_stream_went_on_meanwhile(
    stack: Settings, stack_parts: tuple[Settings, Any]
) -> None:
    servers, stop = stack_parts[0], threading.Event()
    questdb.execute(stack.questdb, "DROP TABLE IF EXISTS vehicle_positions")
    send(stack, VEHICLE_POSITIONS, *fresh(40, 81_000))

    def drive_on() -> None:
        first = 82_000
        while not stop.wait(0.01):
            send(stack, VEHICLE_POSITIONS, *fresh(5, first))
            first += 5

    driving = threading.Thread(target=drive_on, daemon=True)
    with streaming(VEHICLE_POSITIONS, stack):
        until(lambda: find(stack, "vehicle", "v81007").get("questdb/vehicle_positions"))
        assert files_with(servers, "v81007")
        driving.start()
        try:
            before = until(lambda: different(stack) > 60 and different(stack))
            done = forget(stack, "vehicle", "v81007")
            assert done.problems == []
            until(lambda: different(stack) > before + 50)
        finally:
            stop.set()
            driving.join(20)
        until(lambda: in_questdb(stack) == different(stack))
    assert done.rows["questdb/vehicle_positions"] == 1
    (kept,) = questdb.rows(
        stack.questdb, "SELECT dedup, partitionBy, walEnabled FROM tables() WHERE table_name = 'vehicle_positions'"
    )
    assert kept == [True, "HOUR", True], "the contract's own table, not one that a row has made"
    assert files_with(servers, "v81008")
    until(lambda: files_with(servers, "v81007") == [], 90)


def test_an_id_whose_rows_have_gone_is_forgotten_in_the_files_of_symbols(
    stack: Settings, stack_parts: tuple[Settings, Any]
) -> None:
    servers = stack_parts[0]
    at = datetime.now(UTC) - timedelta(hours=2)
    events = drive(at, 0.5, vehicles=3)
    named = [event | {"vehicle_id": event["vehicle_id"].replace("v", "v9100")} for event in events]
    stream(servers.lake, VEHICLE_POSITIONS, named, datetime.now(UTC))
    questdb.execute(stack.questdb, "DROP TABLE IF EXISTS vehicle_positions")
    sink = QuestDBSink(VEHICLE_POSITIONS, servers.questdb, BronzeStream(servers.lake, VEHICLE_POSITIONS))
    sink.open({})
    sink.send_events(bronze(servers), VEHICLE_POSITIONS.name)
    sink.close()
    until(lambda: in_questdb(servers) > 0)
    questdb.execute(stack.questdb, "ALTER TABLE vehicle_positions DROP PARTITION WHERE timestamp > 0")
    until(lambda: in_questdb(servers) == 0)
    assert find(servers, "vehicle", "v91000")["questdb/vehicle_positions"] == 1
    forget(servers, "vehicle", "v91000")
    assert "questdb/vehicle_positions" not in find(servers, "vehicle", "v91000")
    until(lambda: in_questdb(servers) == different(servers))
    until(lambda: files_with(servers, "v91000") == [], 90)
    assert files_with(servers, "v91001")


def to_both(stack: Settings, sink: QuestDBSink, prefix: str) -> None:
    """Positions of an hour ago to bronze and to QuestDB, of vehicles whose ids begin with the prefix."""
    events = drive(datetime.now(UTC) - timedelta(hours=1), 0.25, vehicles=3)
    named = [event | {"vehicle_id": event["vehicle_id"].replace("v", prefix)} for event in events]
    stream(stack.lake, VEHICLE_POSITIONS, named, datetime.now(UTC))
    sink.send_events(bronze(stack).filter(pl.col("vehicle_id").str.starts_with(prefix)), VEHICLE_POSITIONS.name)


@pytest.fixture
def sink(stack: Settings) -> Iterator[QuestDBSink]:
    """A sink that stays open, as the stream's does, beside a table that was just created."""
    for table in copies(stack.questdb, VEHICLE_POSITIONS.name):
        questdb.execute(stack.questdb, f"DROP TABLE {table}")
    sink = QuestDBSink(VEHICLE_POSITIONS, stack.questdb, BronzeStream(stack.lake, VEHICLE_POSITIONS))
    sink.open({})
    yield sink
    sink.close()


def assert_whole(stack: Settings) -> None:
    """The hot table is the contract's own, alone, and has every row of bronze."""
    until(lambda: in_questdb(stack) == different(stack))
    kept = questdb.rows(
        stack.questdb, "SELECT dedup, partitionBy, walEnabled FROM tables() WHERE table_name = 'vehicle_positions'"
    )
    assert kept == [[True, "HOUR", True]]
    assert copies(stack.questdb, VEHICLE_POSITIONS.name) == [VEHICLE_POSITIONS.name]


@pytest.mark.parametrize(
    ("statement", "failure"),
    [
        ("RENAME TABLE vehicle_positions_rebuilt TO", requests.ReadTimeout("no answer")),
        ("RENAME TABLE vehicle_positions_rebuilt TO", KeyboardInterrupt()),
        ("DROP TABLE IF EXISTS vehicle_positions_replaced", KeyboardInterrupt()),
    ],
    ids=["no answer", "killed between the names", "killed at the end"],
)
def test_a_rebuild_that_was_broken_off_is_finished_by_the_next(
    stack: Settings, sink: QuestDBSink, monkeypatch: pytest.MonkeyPatch, statement: str, failure: BaseException
) -> None:
    to_both(stack, sink, "v92")
    until(lambda: in_questdb(stack) == different(stack))
    execute = questdb.execute

    def broken_off(address: str, sql: str, seconds: float = 10.0) -> dict[str, Any]:
        if sql.startswith(statement):
            raise failure
        return execute(address, sql, seconds)

    for prefix in ("v93", "v94"):  # twice, and the stream goes on, into a table that its row makes
        with monkeypatch.context() as patched:
            patched.setattr(questdb, "execute", broken_off)
            if isinstance(failure, KeyboardInterrupt):
                with pytest.raises(KeyboardInterrupt):
                    forget(stack, "vehicle", "v920")
            else:
                done = forget(stack, "vehicle", "v920")
                assert [problem.split(":")[0] for problem in done.problems] == ["questdb/vehicle_positions"]
        to_both(stack, sink, prefix)
        assert find(stack, "vehicle", "v920")["questdb/vehicle_positions"] > 0
    done = forget(stack, "vehicle", "v920")
    assert done.problems == []
    assert done.rows["questdb/vehicle_positions"] > 0
    assert find(stack, "vehicle", "v920") == {}
    assert_whole(stack)


def test_a_row_between_the_two_names_costs_no_later_row(
    stack: Settings, sink: QuestDBSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_both(stack, sink, "v97")
    until(lambda: in_questdb(stack) == different(stack))
    execute, prefixes = questdb.execute, ["v971"]

    def write_between(address: str, sql: str, seconds: float = 10.0) -> dict[str, Any]:
        if sql == "RENAME TABLE vehicle_positions_rebuilt TO vehicle_positions" and prefixes:
            to_both(stack, sink, prefixes.pop())  # of the sink's own connection, into a table that its row makes
        return execute(address, sql, seconds)

    with monkeypatch.context() as patched:
        patched.setattr(questdb, "execute", write_between)
        assert forget(stack, "vehicle", "v970").problems == []
    assert prefixes == []
    for prefix in ("v972", "v973"):
        to_both(stack, sink, prefix)
    assert_whole(stack)
    assert forget(stack, "vehicle", "v971").problems == []  # nothing is written before the old table is dropped
    to_both(stack, sink, "v974")
    assert_whole(stack)


def test_a_table_that_a_row_has_made_is_replaced(stack: Settings, sink: QuestDBSink) -> None:
    questdb.execute(stack.questdb, "DROP TABLE vehicle_positions")
    to_both(stack, sink, "v95")
    until(lambda: in_questdb(stack) >= different(stack))  # the row's table has doubles
    assert forget(stack, "vehicle", "nobody").problems == []
    assert_whole(stack)


def test_who_forgets_waits_for_another_s_rebuild(
    stack: Settings, sink: QuestDBSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_both(stack, sink, "v96")
    until(lambda: in_questdb(stack) == different(stack))
    filled, other_ended = threading.Event(), threading.Event()
    await_applied = questdb_rebuild._await_applied

    def wait_for_the_other(address: str, table: str) -> None:
        await_applied(address, table)
        if not filled.is_set():
            filled.set()
            other_ended.wait(1)  # it ends only where it does not wait

    monkeypatch.setattr(questdb_rebuild, "_await_applied", wait_for_the_other)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(forget, stack, "vehicle", "v960")
        assert filled.wait(20)
        second = pool.submit(forget, stack, "vehicle", "v961")
        second.add_done_callback(lambda _: other_ended.set())
        assert first.result(60).problems == second.result(60).problems == []
    assert_whole(stack)
    assert find(stack, "vehicle", "v960") == find(stack, "vehicle", "v961") == {}


def test_a_file_of_symbols_that_has_gone_meanwhile_is_passed_over(
    stack: Settings, sink: QuestDBSink, tmp_path: Path
) -> None:
    ((folder,),) = questdb.rows(
        stack.questdb, "SELECT directoryName FROM tables() WHERE table_name = 'vehicle_positions'"
    )
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "vehicle_id.c").symlink_to("gone")
    assert not is_symbol(stack.questdb, tmp_path, "vehicle_positions", "vehicle_id", "v1")
    (tmp_path / folder / "vehicle_id.c.1").write_bytes(b"\x02\x00\x00\x00" + "v1".encode("utf-16-le"))
    assert is_symbol(stack.questdb, tmp_path, "vehicle_positions", "vehicle_id", "v1")


def test_a_store_that_fails_keeps_no_other_from_being_erased(config: Settings) -> None:
    broken = [config.lake / layer / "broken" for layer in ("bronze", "served")]
    for path in broken:
        (path / "_delta_log").mkdir(parents=True)
        (path / "_delta_log" / f"{0:020}.json").write_text('{"v7": ')
    cut_off = config.home / "drift" / "reference" / "cut_off.parquet"
    cut_off.parent.mkdir(parents=True)
    cut_off.write_bytes(b"PAR1 v7")
    (config.lake / "silver" / "whole").mkdir(parents=True)
    write_deltalake(config.lake / "silver" / "whole", pl.DataFrame({"vehicle_id": ["v7", "v8"]}))
    (config.home / "a.log").write_text("v7 is late")
    online_store(config).write("vehicle_features", ["v7"], [1], [b"{}"])
    unread: list[str] = []
    assert set(find(config, "vehicle", "v7", unread.append)) >= {"silver/whole", "online/vehicle_features", "a.log"}
    names = ["bronze/broken", "served/broken", "drift/reference/cut_off.parquet"]
    assert [text.split(":")[0] for text in unread] == names
    done = forget(config, "vehicle", "v7")
    assert set(done.rows) >= {"silver/whole", "online/vehicle_features", "a.log"}
    assert [text.split(":")[0] for text in done.problems] == names
    assert all("run it again" in text for text in done.problems)
    line = (config.home / LOG).read_text()
    assert json.loads(line)["problems"] == done.problems
    assert "v7" not in line
    assert set(find(config, "vehicle", "v7")) == set()


def test_what_cannot_be_forgotten_is_told(config: Settings) -> None:
    with pytest.raises(ContractError, match="as 'person'; known: card, machine, payment, sensor, vehicle"):
        find(config, "person", "x")
    assert find(config, "vehicle", "x'; DROP TABLE vehicle_positions") == {}


def test_what_was_answered_about_somebody_is_forgotten_too(config: Settings) -> None:
    path = config.lake / "served" / "payment_fraud"
    entities = ['{"card":"card_1"}', '{"card":"card_11"}', None, '{"card":"card_1"}']
    rows = pl.DataFrame({"id": ["a-1", "a-2", "a-3", "a-4"], "entity": entities})
    path.mkdir(parents=True)
    write_deltalake(path, rows)
    assert find(config, "card", "card_1") == {"served/payment_fraud": 2}
    assert forget(config, "card", "card_1").rows["served/payment_fraud"] == 2
    assert sorted(pl.read_delta(str(path))["id"]) == ["a-2", "a-3"]
    assert find(config, "card", "card_1") == {}
