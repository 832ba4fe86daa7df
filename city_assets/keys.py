"""Asset keys, and what the graph shows of a contract."""

from datetime import date, datetime
from functools import lru_cache
from pathlib import Path

import dagster as dg
import polars as pl

from city import local_time
from city.contracts.model import Contract
from city.contracts.registry import contracts
from city.contracts.schema import LINEAGE, QUARANTINE, bronze_schema
from city.lake.days import first_day
from city.settings import settings
from city.streaming.sinks.kafka import DASHBOARD_TOPIC
from city.tables.model import Table
from city.tables.schema import schema

_LINEAGE_MEANS = {
    "_partition": "Kafka partition",
    "_offset": "Kafka offset",
    "_arrived": "when Kafka had it",
    "_watermark": "the newest event time of its partition up to it",
}


def bronze(contract: Contract) -> dg.AssetKey:
    return dg.AssetKey(["bronze", contract.name])


def table(name: str) -> dg.AssetKey:
    """Of a table by its `layer/name`."""
    return dg.AssetKey(name.split("/"))


def days(first: date) -> dg.DailyPartitionsDefinition:
    """The city's local days from `first` to today."""
    return dg.DailyPartitionsDefinition(first.isoformat(), timezone=settings().timezone, end_offset=1)


def live_days() -> dg.DailyPartitionsDefinition:
    """The days from the first that bronze has, which is today in a new city; none that a table would refuse."""
    config = settings()
    return days(_first_live_day(config.lake, config.timezone))


@lru_cache(maxsize=8)
def _first_live_day(lake: Path, timezone: str) -> date:
    begin = first_day(lake, contracts(), timezone) or datetime.now(local_time.zone(timezone)).date()
    return max(begin, Table.first_day)


def reload_days() -> None:
    """Reads the first day again, when the definitions are loaded."""
    _first_live_day.cache_clear()


def quarantine(contract: Contract) -> dg.AssetKey:
    return dg.AssetKey(["quarantine", contract.name])


def topic(name: str) -> dg.AssetKey:
    return dg.AssetKey(["kafka", name.replace(".", "_")])


def questdb(table: str) -> dg.AssetKey:
    return dg.AssetKey(["questdb", table])


DASHBOARD = topic(DASHBOARD_TOPIC)


def bronze_columns(contract: Contract) -> dg.TableSchema:
    """The table's columns with type, unit and meaning, for the UI."""
    means = {f.name: f.means + (f" [{f.unit}]" if f.unit else "") for f in contract.fields}
    means |= {cell.name: f"H3 cell, resolution {cell.resolution}" for cell in contract.cells} | _LINEAGE_MEANS
    nullable = {f.name for f in contract.fields if f.nullable} | set(LINEAGE)
    return _columns(bronze_schema(contract), means, nullable)


def table_columns(table: Table) -> dg.TableSchema:
    means = {c.name: c.means + (f" [{c.unit}]" if c.unit else "") for c in table.columns}
    return _columns(schema(table), means, {c.name for c in table.columns if c.nullable})


def quarantine_columns() -> dg.TableSchema:
    means = {
        "reasons": "every reason for which it was rejected",
        "raw": "the message as it came",
        "contract_version": "the version of the contract that rejected it",
    }
    return _columns(QUARANTINE, means, set())


def _columns(schema: dict[str, pl.DataType], means: dict[str, str], nullable: set[str]) -> dg.TableSchema:
    return dg.TableSchema(
        [
            dg.TableColumn(
                name,
                str(kind),
                description=means.get(name),
                constraints=dg.TableColumnConstraints(nullable=name in nullable),
            )
            for name, kind in schema.items()
        ]
    )
