"""Appends past events to bronze: validated by the contract, a local day in one commit, and each day once.

A row of history has a negative offset of partition 0. No Kafka message has one, so the offset marks the row as history,
in bronze and in silver (`city.contracts.schema.is_history`). Offsets rise with the events' time, and no two rows have
the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from city.contracts import validity
from city.contracts.cells import with_cells
from city.contracts.model import Contract
from city.contracts.schema import LINEAGE, POLARS, QUARANTINE, bronze_schema
from city.lake import bronze_path, quarantine_path
from city.lake.tables import open_table
from city.streaming.bronze import writer_properties

_PARTITION = 0
_FIRST_OFFSET, _OFFSETS_A_DAY = -(2**62), 2**40
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class AppendedDay:
    """The result of appending a day: how many rows bronze got, and how many quarantine got."""

    rows: int
    rejected: int


def recorded_days(lake: Path, contract: Contract, days: Iterable[date]) -> list[date]:
    """Returns those of the local days whose history bronze has."""
    path = bronze_path(lake, contract)
    if not DeltaTable.is_deltatable(str(path)):
        return []
    table = DeltaTable(path)
    return [day for day in days if _version(table, contract, day) is not None]


def select_days_of(lake: Path, contract: Contract, source: str, days: Iterable[date]) -> set[date]:
    """Returns those of the days that bronze has the history of, from this source."""
    path = bronze_path(lake, contract)
    if not DeltaTable.is_deltatable(str(path)):
        return set()
    table = DeltaTable(path)
    return {day for day in days if _version(table, contract, day, source) is not None}


def append_day(
    lake: Path, contract: Contract, day: date, events: pl.DataFrame, source: str | None = None
) -> AppendedDay | None:
    """Appends the events of a local day. Returns None where bronze has the day already, from whatever source.

    `source` names where recorded events come from; None is the simulator. Bronze's log has it (`select_days_of`).

    `events` has the contract's fields, and the event time in UTC. What the contract rejects goes to quarantine first,
    so a crash between the two commits can repeat rejects, and loses none. After a crash bronze has the whole day or
    nothing of it.
    """
    may_add = bronze_schema(contract).keys() - LINEAGE.keys() - {contract.key, contract.event_time}
    table = open_table(bronze_path(lake, contract), bronze_schema(contract), may_add=may_add)
    if _version(table, contract, day) is not None:
        return None
    names = [_transaction(contract, day)] + ([_transaction(contract, day, source)] if source else [])
    rows, rejects = _rows(contract, day, events)
    if rejects.height:
        write_deltalake(open_table(quarantine_path(lake, contract), QUARANTINE), rejects, mode="append")
    write_deltalake(
        table,
        rows,
        mode="append",
        commit_properties=CommitProperties(app_transactions=[Transaction(name, 1) for name in names]),
        writer_properties=writer_properties(contract),
    )
    return AppendedDay(rows.height, rejects.height)


def _rows(contract: Contract, day: date, events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Returns a day's bronze rows, and its quarantine records."""
    time = contract.event_time
    first = _FIRST_OFFSET + (day - _EPOCH).days * _OFFSETS_A_DAY
    # An event of the past arrived when it happened: the lateness and the age of history are those of its own time.
    unknown = [pl.lit(None, POLARS[f.kind]).alias(f.name) for f in contract.fields if f.name not in events.columns]
    placed = (
        events.with_columns(unknown)
        .sort(time)
        .with_columns(
            _partition=pl.lit(_PARTITION, pl.Int32),
            _offset=pl.lit(first) + pl.int_range(pl.len(), dtype=pl.Int64),
            _arrived=pl.col(time),
            _watermark=pl.col(time),
        )
    )
    valid, invalid = validity.split(contract, placed)
    rows = with_cells(contract, valid).select(pl.col(name).cast(kind) for name, kind in bronze_schema(contract).items())
    raw = pl.struct(field.name for field in contract.fields if field.name in invalid.columns).struct.json_encode()
    rejects = invalid.select(
        topic=pl.lit(contract.topic),
        partition="_partition",
        offset="_offset",
        arrived="_arrived",
        reasons="reasons",
        raw=raw.cast(pl.Binary),
        contract_version=pl.lit(contract.version, dtype=pl.Int32),
    )
    return rows, rejects


def _transaction(contract: Contract, day: date, source: str | None = None) -> str:
    return f"history/{contract.topic}/{day}" + (f"/{source}" if source else "")


def _version(table: DeltaTable, contract: Contract, day: date, source: str | None = None) -> int | None:
    return table.transaction_version(_transaction(contract, day, source))
