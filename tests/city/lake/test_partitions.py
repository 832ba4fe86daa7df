"""Replacing partitions: all of them or none, beside others who write."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from threading import Barrier

import polars as pl
import pytest
from deltalake import DeltaTable

from city.lake.partitions import replace_partitions
from city.lake.tables import open_table

SCHEMA = {"day": pl.Date(), "local_hour": pl.Int64(), "value": pl.Float64()}
BY = ["day", "local_hour"]
FIRST, SECOND = date(2026, 5, 4), date(2026, 5, 5)
FIRST_DAY = [("day", ">=", "2026-05-04"), ("day", "<=", "2026-05-04")]


def rows(*values: tuple[date, int, float]) -> pl.LazyFrame:
    return pl.LazyFrame(values, schema=SCHEMA, orient="row")


def held(path: Path) -> list[tuple[date, int, float]]:
    return pl.read_delta(str(path)).select(list(SCHEMA)).sort(list(SCHEMA)).rows()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    open_table(tmp_path / "table", SCHEMA, BY)
    replace_partitions(tmp_path / "table", BY, [rows((FIRST, 0, 1.0), (FIRST, 1, 2.0)), rows((SECOND, 0, 3.0))], None)
    return tmp_path / "table"


def test_only_the_named_partitions_are_replaced(path: Path) -> None:
    hour = [*FIRST_DAY, ("local_hour", "in", ["1", "7"])]
    replace_partitions(path, BY, [rows((FIRST, 1, 9.0)), rows((FIRST, 1, 8.0))], hour)
    assert held(path) == [(FIRST, 0, 1.0), (FIRST, 1, 8.0), (FIRST, 1, 9.0), (SECOND, 0, 3.0)]
    replace_partitions(path, BY, [rows()], FIRST_DAY)
    assert held(path) == [(SECOND, 0, 3.0)]
    counts = pl.DataFrame(DeltaTable(path).get_add_actions(flatten=True))
    assert counts["num_records"].to_list() == [1]


def test_a_table_without_partitions_is_replaced_whole(tmp_path: Path) -> None:
    schema = {"value": pl.Float64()}
    open_table(tmp_path / "table", schema)
    for value in (1.0, 2.0):
        replace_partitions(tmp_path / "table", [], [pl.LazyFrame({"value": [value]})], None)
    assert pl.read_delta(str(tmp_path / "table"))["value"].to_list() == [2.0]


def test_what_fails_leaves_the_table_as_it_was(path: Path) -> None:
    before = held(path)

    def broken(frame: pl.DataFrame) -> pl.DataFrame:
        raise OSError("the disk is gone")

    late = pl.concat([rows((FIRST, 5, 1.0)), rows((FIRST, 6, 1.0)).map_batches(broken)])
    with pytest.raises(OSError, match="the disk is gone"):
        replace_partitions(path, BY, [late], None)
    assert held(path) == before


def test_two_builds_of_a_new_day_at_once_leave_the_rows_of_one(tmp_path: Path) -> None:
    path, together = tmp_path / "table", Barrier(4)
    open_table(path, SCHEMA, BY)

    def build(value: int) -> None:
        def wait(frame: pl.DataFrame) -> pl.DataFrame:
            together.wait(20)
            return frame

        replace_partitions(path, BY, [rows((FIRST, 0, float(value))).map_batches(wait)], FIRST_DAY)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(build, range(4)))
    assert len(held(path)) == 1
