"""Declarations of tables: what contradicts itself is refused with what to mend."""

from typing import Any

import polars as pl
import pytest

from city.tables import Column, Source, Table, TableError
from city.tables.registry import tables
from city.tables.schema import partition_by, schema

_DAY = Column(name="day", kind="date", description="the local day")
_ID = Column(name="id", kind="string", description="who")
_OF_B = Column(name="id", kind="string", description="who", origins=("b.id",))


def table(**changes: Any) -> Table:
    base: dict[str, Any] = {"name": "things", "layer": "gold", "description": "Things.", "key": ("id",)}
    return Table(**(base | {"columns": (_ID, _DAY)} | changes))


@pytest.mark.parametrize(
    ("changes", "mend"),
    [
        ({"columns": (_ID, _DAY, _ID)}, "a column stands twice in ['id', 'day', 'id']"),
        ({"key": ("who",)}, "uses 'who', which is not among its columns ['id', 'day']"),
        ({"columns": (_ID,)}, "uses 'day', which is not among its columns ['id']"),
        ({"time": "at"}, "uses 'at', which is not among its columns ['id', 'day']"),
        (
            {
                "columns": (Column(name="id", kind="string", description="", origins=("b.id",)), _DAY),
                "sources": {"a": Source(table="silver/a")},
            },
            "column 'id' comes from 'b.id', but its sources are ['a']",
        ),
    ],
)
def test_a_table_that_contradicts_itself_says_what_to_mend(changes: dict[str, Any], mend: str) -> None:
    with pytest.raises(TableError) as error:
        table(**changes)
    assert mend in str(error.value)
    assert "'gold/things'" in str(error.value)


def test_a_snapshot_needs_no_day() -> None:
    snapshot = table(columns=(_ID,), daily=False)
    assert snapshot.id == "gold/things"
    assert snapshot.column("id") is _ID
    with pytest.raises(StopIteration):
        snapshot.column("day")


def test_the_schema_has_a_type_for_every_column_of_every_table() -> None:
    for declared in tables().values():
        assert list(schema(declared)) == [column.name for column in declared.columns]
    kinds = {"s": "string", "f": "float", "i": "integer", "b": "boolean", "t": "timestamp", "d": "date"}
    columns = tuple(Column(name=name, kind=kind, description="") for name, kind in kinds.items())  # type: ignore[arg-type]
    assert schema(table(key=("s",), columns=columns, daily=False)) == {
        "s": pl.String(),
        "f": pl.Float64(),
        "i": pl.Int64(),
        "b": pl.Boolean(),
        "t": pl.Datetime("us", "UTC"),
        "d": pl.Date(),
    }


def test_files_are_partitioned_as_finely_as_a_build_replaces_them() -> None:
    assert partition_by(table(daily=False)) == []
    assert partition_by(table()) == ["day"]
    assert partition_by(table(hourly_slices=True)) == ["day", "local_hour"]
