"""The checks of the hot tier see what QuestDB lacks, what it has too many, and what it does not do."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import dagster as dg
import numpy as np
import polars as pl
import pytest
import requests

from city import questdb as questdb_http
from city.contracts import questdb as tables
from city.contracts.model import Contract
from city.questdb import QuestDBError
from city.settings import Settings
from city.streaming.bronze import BronzeStream
from city.streaming.decode import decode
from city.streaming.records import Batch, RawBatch
from city.streaming.sinks.questdb import QuestDBSink
from city_assets import keys
from city_assets.environment.contract import DEVICES
from city_assets.hot_tier import (
    LAG,
    compare_rows,
    distinct_by_minute,
    hot_checks,
    other_ttl,
    rows_by_minute,
    settled_rows,
    suspended_tables,
)
from city_assets.monitoring.checks import UNKNOWN
from city_assets.traffic.contract import VEHICLE_POSITIONS
from resources.lake import LakeResource
from resources.questdb import QuestDBResource
from tests.events import encode, iso, position
from tests.live import until

MINUTE = datetime(2026, 5, 4, 8, 30, tzinfo=UTC)
MINUTE_US = int(MINUTE.timestamp() * 1e6)


def bronze(*rows: tuple[float, str, int, int]) -> pl.DataFrame:
    """Rows of (seconds after MINUTE, vehicle, offset, seconds of arrival after MINUTE)."""
    return pl.DataFrame(
        {
            "timestamp": [MINUTE + timedelta(seconds=row[0]) for row in rows],
            "vehicle_id": [row[1] for row in rows],
            "_partition": [0] * len(rows),
            "_offset": [row[2] for row in rows],
            "_arrived": [MINUTE + timedelta(seconds=row[3]) for row in rows],
        }
    )


def hot(*counts: tuple[int, int, int]) -> pl.DataFrame:
    """Minutes of (minutes after MINUTE, rows, settled rows)."""
    schema = ["minute", "rows", "settled"]
    return pl.DataFrame([(MINUTE_US + n * 60_000_000, *rest) for n, *rest in counts], schema=schema, orient="row")


def test_copies_of_an_event_are_one_row_of_its_minute() -> None:
    rows = bronze((1, "a", 0, 1), (1, "a", 1, 1), (1, "b", 2, 1), (59, "a", 3, 59), (60, "a", 4, 60))
    counts = distinct_by_minute(VEHICLE_POSITIONS, rows).sort("minute")
    assert counts.rows() == [(MINUTE_US, 3), (MINUTE_US + 60_000_000, 1)]


def test_rows_are_settled_by_their_offsets() -> None:
    rows = bronze((1, "a", 0, 1), (2, "b", 1, 90), (3, "c", 2, 3), (4, "d", 3, 95))
    settled, ends = settled_rows(rows, MINUTE + timedelta(seconds=60))
    assert (settled["vehicle_id"].to_list(), ends) == (["a", "b", "c"], {0: 2})
    assert settled_rows(rows.clear(), MINUTE)[1] == {}


def test_what_is_missing_and_what_is_unexpected_is_told_by_minute() -> None:
    counts = pl.DataFrame({"minute": [MINUTE_US + n * 60_000_000 for n in range(4)], "rows": [10, 10, 10, 10]})
    as_it_should_be = hot((0, 10, 10), (1, 12, 9), (2, 10, 10), (3, 10, 10), (4, 3, 0))
    assert compare_rows(counts, as_it_should_be).is_empty(), "later rows and later copies are no difference"
    different = compare_rows(counts, hot((0, 8, 8), (1, 10, 10), (2, 13, 11), (5, 1, 1)))
    assert different.rows() == [
        (MINUTE, 2, 0),
        (MINUTE + timedelta(minutes=2), 0, 1),
        (MINUTE + timedelta(minutes=3), 10, 0),
        (MINUTE + timedelta(minutes=5), 0, 1),
    ]


def test_the_query_names_the_offsets_of_each_partition() -> None:
    query = rows_by_minute(VEHICLE_POSITIONS, MINUTE, {1: 7, 0: 4})
    assert "(part = 0 AND off <= 4) OR (part = 1 AND off <= 7)" in query
    assert "FROM vehicle_positions WHERE timestamp >= '2026-05-04T08:30:00.000000Z'" in query


def test_only_suspended_tables_of_the_contract_are_named() -> None:
    wal = pl.DataFrame({"name": ["a", "b", "other"], "suspended": [True, False, True]})
    assert suspended_tables(wal, ["a", "b"]) == ["a"]


def test_a_ttl_is_compared_whatever_its_unit() -> None:
    ttl = pl.DataFrame(
        [("hours", 48, "HOUR"), ("days", 2, "DAY"), ("weeks", 1, "WEEK"), ("months", 1, "MONTH"), ("ever", 0, None)],
        schema=["name", "value", "unit"],
        orient="row",
    )
    assert other_ttl(ttl, ["hours", "days"], 48) == {}
    assert other_ttl(ttl, ["hours", "weeks", "months", "ever", "none"], 48) == {
        "weeks": "1 WEEK",
        "months": "1 MONTH",
        "ever": "for ever",
        "none": "there is no table",
    }


def test_a_low_rate_topic_has_no_hot_tier() -> None:
    assert hot_checks(DEVICES) == []
    assert len(hot_checks(VEHICLE_POSITIONS)) == 3


Answer = Callable[[str], list[tuple[Any, ...]]]


def memory_questdb(answer: Answer) -> QuestDBResource:
    """A double: answers each query from memory, or raises."""

    class MemoryQuestDB(QuestDBResource):
        def frame(self, sql: str, schema: dict[str, pl.DataType]) -> pl.DataFrame:
            return pl.DataFrame(answer(sql), schema=schema, orient="row")

    return MemoryQuestDB(address="questdb:9000")


def judge(
    config: Settings, questdb: QuestDBResource, contract: Contract = VEHICLE_POSITIONS
) -> dict[str, dg.AssetCheckEvaluation]:
    lake = LakeResource(path=str(config.lake))
    defs = dg.Definitions(
        assets=[dg.AssetSpec(keys.questdb(contract.name))],
        asset_checks=hot_checks(contract),
        resources={"lake": lake, "questdb": questdb},
        jobs=[dg.define_asset_job("checks", dg.AssetSelection.all_asset_checks())],
    )
    result = defs.resolve_job_def("checks").execute_in_process()
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def settled_time() -> datetime:
    """A time so long ago that its rows are settled."""
    return datetime.now(UTC) - 3 * LAG


def stream_in(config: Settings, contract: Contract, count: int, at: datetime) -> BronzeStream:
    """Appends events of that time."""
    stream = BronzeStream(config.lake, contract)
    stream.load([0])
    values = encode(*(position(timestamp=iso(at), vehicle_id=f"v{n}") for n in range(count)))
    arrived = np.full(count, int(at.timestamp() * 1e6), np.int64)
    raw = RawBatch(values, np.zeros(count, np.int32), np.arange(count, dtype=np.int64), arrived, {0: 0}, {0: count})
    rows, rejects = decode(contract, raw, {})
    assert rejects.is_empty()
    stream.commit(Batch(rows, raw.start, raw.end), rejects, {}, threading.Event(), print)
    return stream


def answer(rows: int, at: datetime, suspended: bool = False, hours: int = 48) -> Answer:
    """What a QuestDB answers that has so many rows of the minute of `at`."""
    minute = at.replace(second=0, microsecond=0)
    names = tables.table_names(VEHICLE_POSITIONS)

    def query(sql: str) -> list[tuple[Any, ...]]:
        if "wal_tables()" in sql:
            return [(name, suspended) for name in names]
        if "tables()" in sql:
            return [(name, hours, "HOUR") for name in names]
        return [(int(minute.timestamp() * 1e6), rows, rows)]

    return query


@pytest.mark.parametrize(
    ("rows", "suspended", "hours", "failing"),
    [
        (20, False, 48, set[str]()),
        (19, False, 48, {"as_in_bronze"}),
        (21, False, 48, {"as_in_bronze"}),
        (20, True, 48, {"applied"}),
        (20, False, 0, {"ttl"}),
    ],
)
def test_each_check_sees_its_fault(config: Settings, rows: int, suspended: bool, hours: int, failing: set[str]) -> None:
    at = settled_time()
    stream_in(config, VEHICLE_POSITIONS, 20, at)
    result = judge(config, memory_questdb(answer(rows, at, suspended, hours)))
    assert {name for name, evaluation in result.items() if not evaluation.passed} == failing
    assert result["as_in_bronze"].metadata["rows"].value == 20
    assert result["applied"].severity == dg.AssetCheckSeverity.ERROR


def test_a_questdb_that_is_away_tells_nothing_of_its_tables(config: Settings) -> None:
    def away(sql: str) -> list[tuple[Any, ...]]:
        raise requests.ConnectionError("refused")

    stream_in(config, VEHICLE_POSITIONS, 1, settled_time())
    for evaluation in judge(config, memory_questdb(away)).values():
        assert evaluation.passed
        assert evaluation.metadata[UNKNOWN].value == "QuestDB at questdb:9000 is unavailable: ConnectionError"


def test_a_query_that_is_refused_fails_the_check_with_its_reason(config: Settings) -> None:
    def refuse(sql: str) -> list[tuple[Any, ...]]:
        raise QuestDBError("table does not exist [table=vehicle_positions]")

    stream_in(config, VEHICLE_POSITIONS, 1, settled_time())
    result = judge(config, memory_questdb(refuse))
    assert {evaluation.description for evaluation in result.values()} == {
        "table does not exist [table=vehicle_positions]"
    }
    assert not any(evaluation.passed for evaluation in result.values())


def test_a_city_without_bronze_has_nothing_to_compare(config: Settings) -> None:
    result = judge(config, memory_questdb(answer(0, settled_time())))
    assert all(evaluation.passed for evaluation in result.values())
    assert UNKNOWN in result["as_in_bronze"].metadata


@pytest.mark.integration
def test_the_checks_read_a_real_questdb(stack: Settings) -> None:
    name = f"h{uuid4().hex[:8]}"
    window = replace(VEHICLE_POSITIONS.windows[0], name=f"{name}_cells", topic=f"{name}.windows")
    contract = replace(VEHICLE_POSITIONS, name=name, topic=name, windows=(window,), partitions=1)
    sink = QuestDBSink(contract, stack.questdb, bronze := stream_in(stack, contract, 20, settled_time()))
    sink.open({0: 0})
    rows = pl.read_delta(str(bronze.path))
    sink.send_events(rows, contract.name)
    questdb = QuestDBResource(address=str(stack.questdb))
    until(lambda: questdb_http.rows(stack.questdb, f"SELECT count() FROM {name}") == [[20]])
    result = judge(stack, questdb, contract)
    assert all(evaluation.passed for evaluation in result.values()), json.dumps(
        {check: str(evaluation.metadata) for check, evaluation in result.items()}
    )
    assert result["as_in_bronze"].metadata["rows"].value == 20

    sink.send_events(rows.head(1).with_columns(vehicle_id=pl.lit("nobody")), contract.name)
    questdb_http.execute(stack.questdb, f"ALTER TABLE {name} SET TTL 3 DAYS")
    questdb_http.execute(stack.questdb, f"ALTER TABLE {window.name} SUSPEND WAL")
    until(lambda: questdb_http.rows(stack.questdb, f"SELECT count() FROM {name}") == [[21]])
    result = until(lambda: (r := judge(stack, questdb, contract)) and not any(e.passed for e in r.values()) and r)
    assert result["ttl"].metadata["different"].value == {name: "3 DAY"}
    assert result["applied"].metadata["suspended"].value == window.name
    sink.close()
