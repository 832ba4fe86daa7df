"""QuestDB's windows after a request that was cut off between tables, on a real QuestDB."""

import threading
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from city import questdb
from city.contracts.model import Contract
from city.lake import bronze_path
from city.settings import Settings
from city.streaming.bronze import BronzeStream, scan
from city.streaming.decode import decode
from city.streaming.records import Batch, RawBatch
from city.streaming.sinks.base import SinkWorker, contract_windows
from city.streaming.sinks.questdb import QuestDBSink, ensure_tables
from city.streaming.windows import compute
from city_assets.traffic.contract import VEHICLE_POSITIONS
from tests.events import encode, iso, position
from tests.live import until

BEGIN = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)


@pytest.fixture
def contract() -> Contract:
    name = f"q{uuid.uuid4().hex[:8]}"
    window = replace(VEHICLE_POSITIONS.windows[0], name=f"{name}_cells", topic=f"{name}.windows")
    return replace(VEHICLE_POSITIONS, name=name, topic=name, windows=(window,), partitions=1)


def stream(config: Settings, contract: Contract, minutes: range, vehicle: str = "v{}") -> BronzeStream:
    """Commits to bronze an event each minute, each of another vehicle."""
    bronze = BronzeStream(config.lake, contract)
    first = bronze.load([0])[0]
    count = len(minutes)
    times = [iso(BEGIN + timedelta(minutes=minute)) for minute in minutes]
    values = encode(*(position(vehicle_id=vehicle.format(n), timestamp=time) for n, time in enumerate(times)))
    arrived = np.full(count, int((BEGIN + timedelta(minutes=minutes[-1])).timestamp() * 1e6), np.int64)
    offsets = np.arange(first, first + count, dtype=np.int64)
    raw = RawBatch(values, np.zeros(count, np.int32), offsets, arrived, {0: first}, {0: first + count})
    rows, rejects = decode(contract, raw, bronze.watermarks)
    assert rejects.is_empty()
    bronze.commit(Batch(rows, raw.start, raw.end), rejects, {}, threading.Event(), print)
    return bronze


def apply(config: Settings, bronze: BronzeStream, kind: type[QuestDBSink] = QuestDBSink) -> None:
    """Runs the sink until it has what bronze has, as a stream that has just started does."""
    contract, stop = bronze.contract, threading.Event()
    sink = kind(contract, config.questdb, bronze)
    worker = SinkWorker(sink, bronze, dict.fromkeys(bronze.position, 0), stop, contract_windows(contract, bronze))
    worker.start()
    until(lambda: worker.position == bronze.position and worker.behind() == 0)
    worker.drain()
    assert worker.join(20)
    assert worker.last_error is None


def windows(config: Settings, contract: Contract) -> list[tuple[int, int]]:
    """Minutes after BEGIN and number of positions of each window that QuestDB has."""
    (window,) = contract.windows
    stored = questdb.rows(config.questdb, f"SELECT cast(window_start AS LONG), positions FROM {window.name}")
    return sorted((int(at // 60_000_000 - BEGIN.timestamp() // 60), count) for at, count in stored)


def expected(config: Settings, contract: Contract) -> list[tuple[int, int]]:
    (window,) = contract.windows
    computed = compute(contract, window, scan(bronze_path(config.lake, contract)).collect())
    starts = ((computed["window_start"] - BEGIN).dt.total_minutes()).to_list()
    return sorted(zip(starts, computed["positions"].to_list(), strict=True))


class CutOff(QuestDBSink):
    """Of a request that has windows and rows, only the rows come to be in QuestDB. It was opened before they came."""

    def _send_open_windows(self) -> None: ...

    def _send_frame(self, table: str, frame: pl.DataFrame, symbols: list[str], at: str) -> None:
        if table == self._contract.name:
            self._windows: list[Any] = []
            super()._send_frame(table, frame, symbols, at)
        else:
            self._windows = [*getattr(self, "_windows", []), (table, frame, symbols, at)]

    def _flush(self) -> None:
        for window in getattr(self, "_windows", []):
            super()._send_frame(*window)
        self._windows = []
        super()._flush()


def test_a_table_that_is_suspended_while_the_stream_runs_is_resumed(
    stack: Settings, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QuestDB acknowledges rows, and suspends their table when it cannot apply them, as on a full disk."""
    monkeypatch.setattr("city.streaming.sinks.questdb._LOOK_SECONDS", 0.0)
    bronze = stream(stack, contract, range(4))
    sink = QuestDBSink(contract, stack.questdb, bronze)
    sink.open({})
    windows_of = contract_windows(contract, bronze)
    rows = scan(bronze.path).collect()
    questdb.execute(stack.questdb, f"ALTER TABLE {contract.name} SUSPEND WAL")
    sink.apply(rows, {0: 0}, lambda: windows_of.changed(Batch(rows, {0: 0}, {0: 4})))
    sink.close()
    until(lambda: questdb.rows(stack.questdb, f"SELECT count() FROM {contract.name}") == [[4]])


@pytest.mark.parametrize(("last", "away_minutes"), [(9, 0), (9, 600), (600, 0)])
def test_windows_that_a_request_was_cut_off_before_are_whole_after_a_restart(
    stack: Settings, contract: Contract, last: int, away_minutes: int
) -> None:
    """Its rows are in QuestDB, so they are not given again; bronze goes on while QuestDB is unavailable. A request
    of a backlog has the rows of hours."""
    bronze = stream(stack, contract, range(4))
    apply(stack, bronze)
    until(lambda: windows(stack, contract) == [(0, 2), (2, 2)])
    apply(stack, stream(stack, contract, range(4, last)), CutOff)
    until(lambda: questdb.rows(stack.questdb, f"SELECT count() FROM {contract.name}") == [[last]])
    bronze = stream(stack, contract, range(last + away_minutes, last + away_minutes + 3))
    apply(stack, bronze)
    until(lambda: windows(stack, contract) == expected(stack, contract))


def test_the_identifiers_of_other_systems_are_symbols(stack: Settings, contract: Contract) -> None:
    ensure_tables(stack.questdb, contract)
    apply(stack, stream(stack, contract, range(2), "MTA NYCT_{}, (1:0123)"))
    vehicles = [["MTA NYCT_0, (1:0123)"], ["MTA NYCT_1, (1:0123)"]]
    until(lambda: questdb.rows(stack.questdb, f"SELECT vehicle_id FROM {contract.name} ORDER BY 1") == vehicles)


def test_an_empty_questdb_gets_all_windows(stack: Settings, contract: Contract) -> None:
    ensure_tables(stack.questdb, contract)
    apply(stack, stream(stack, contract, range(600)))
    until(lambda: windows(stack, contract) == expected(stack, contract))


def test_rows_are_the_same_in_questdb_one_by_one_and_as_a_frame(
    stack: Settings, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backlog goes as frames, made by pandas."""
    bronze = stream(stack, contract, range(40))
    apply(stack, bronze)
    framed = replace(contract, name=f"{contract.name}_framed", windows=())
    ensure_tables(stack.questdb, framed)
    monkeypatch.setattr("city.streaming.sinks.questdb._FIRST_FRAME_ROWS", 39)
    monkeypatch.setattr(QuestDBSink, "_has_pandas", False)  # as in a process that has sent no frame
    sink = QuestDBSink(contract, stack.questdb, bronze)
    sink.connect()
    sink.send_events(scan(bronze_path(stack.lake, contract)).collect(), framed.name)
    sink.close()
    assert QuestDBSink._has_pandas
    rows = [
        lambda n=n: questdb.rows(stack.questdb, f"SELECT * FROM {n} ORDER BY off") for n in (contract.name, framed.name)
    ]
    until(lambda: len(rows[0]()) == len(rows[1]()) == 40)
    assert rows[0]() == rows[1]()
