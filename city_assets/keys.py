"""Asset keys, partitions, and the column schemas that the graph shows of contracts and tables."""

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
from city.stack.history_plan import load_plan
from city.streaming.topics import DASHBOARD_TOPIC
from city.tables.model import Table
from city.tables.schema import schema

_LINEAGE_DESCRIPTIONS = {
    "_partition": "Kafka partition",
    "_offset": "Kafka offset",
    "_arrived": "when Kafka had it",
    "_watermark": "the newest event time of its partition up to it",
}


def bronze(contract: Contract) -> dg.AssetKey:
    """Returns the key of a contract's bronze table."""
    return dg.AssetKey(["bronze", contract.name])


def table(name: str) -> dg.AssetKey:
    """Returns the key of a table, from its id `layer/name`."""
    return dg.AssetKey(name.split("/"))


def days(first: date) -> dg.DailyPartitionsDefinition:
    """Returns the partitions of the city's local days, from `first` to today."""
    return dg.DailyPartitionsDefinition(first.isoformat(), timezone=settings().timezone, end_offset=1)


def live_days() -> dg.DailyPartitionsDefinition:
    """Returns the partitions of the live tables.

    They begin with the first day that bronze has, or will have when its history is made. In a new city without a
    history that is today. With a recorded history it may be years ago: a day without rows is a partition that nothing
    requests. No day is earlier than `Table.first_day`, because a table refuses such days.
    """
    config = settings()
    return days(_load_first_live_day(config.lake, config.timezone))


@lru_cache(maxsize=8)
def _load_first_live_day(lake: Path, timezone: str) -> date:
    begin = first_day(lake, contracts(), timezone) or datetime.now(local_time.zone(timezone)).date()
    # The definitions are loaded while the history is being made: its days are partitions from the beginning.
    plan = load_plan(settings())
    planned = plan.local_days[0] if plan is not None and plan.local_days else begin
    return max(min(begin, planned), Table.first_day)


def reload_days() -> None:
    """Clears the cached first day, so that it is read again when the definitions are loaded."""
    _load_first_live_day.cache_clear()


def quarantine(contract: Contract) -> dg.AssetKey:
    """Returns the key of a contract's quarantine table."""
    return dg.AssetKey(["quarantine", contract.name])


def topic(name: str) -> dg.AssetKey:
    """Returns the key of a Kafka topic. A dot of its name becomes an underscore."""
    return dg.AssetKey(["kafka", name.replace(".", "_")])


def questdb(table: str) -> dg.AssetKey:
    """Returns the key of a QuestDB table."""
    return dg.AssetKey(["questdb", table])


DASHBOARD = topic(DASHBOARD_TOPIC)


def bronze_columns(contract: Contract) -> dg.TableSchema:
    """Returns the columns of a contract's bronze table with type, unit and description, for the UI."""
    descriptions = {f.name: f.description + (f" [{f.unit}]" if f.unit else "") for f in contract.fields}
    descriptions |= {
        cell.name: f"H3 cell, resolution {cell.resolution}" for cell in contract.cells
    } | _LINEAGE_DESCRIPTIONS
    nullable = {f.name for f in contract.fields if f.nullable} | set(LINEAGE)
    return _column_schema(bronze_schema(contract), descriptions, nullable)


def table_columns(table: Table) -> dg.TableSchema:
    """Returns the columns of a table with type, unit and description, for the UI."""
    descriptions = {c.name: c.description + (f" [{c.unit}]" if c.unit else "") for c in table.columns}
    return _column_schema(schema(table), descriptions, {c.name for c in table.columns if c.nullable})


def quarantine_columns() -> dg.TableSchema:
    """Returns the columns of a quarantine table with type and description, for the UI."""
    descriptions = {
        "reasons": "every reason for which it was rejected",
        "raw": "the message as it came",
        "contract_version": "the version of the contract that rejected it",
    }
    return _column_schema(QUARANTINE, descriptions, set())


def _column_schema(schema: dict[str, pl.DataType], descriptions: dict[str, str], nullable: set[str]) -> dg.TableSchema:
    return dg.TableSchema(
        [
            dg.TableColumn(
                name,
                str(kind),
                description=descriptions.get(name),
                constraints=dg.TableColumnConstraints(nullable=name in nullable),
            )
            for name, kind in schema.items()
        ]
    )
