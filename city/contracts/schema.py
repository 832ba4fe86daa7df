"""Derives the column types of a contract: of its JSON, its bronze table and its quarantine."""

from typing import TYPE_CHECKING, TypeVar

import polars as pl

from city.contracts.model import Contract, Kind

if TYPE_CHECKING:
    import narwhals as nw

Expr = TypeVar("Expr", pl.Expr, "nw.Expr")
"""An expression of Polars, or of the tables' engine."""

TIMESTAMP = pl.Datetime("us", "UTC")
POLARS: dict[Kind, pl.DataType] = {
    "string": pl.String(),
    "float": pl.Float64(),
    "integer": pl.Int64(),
    "boolean": pl.Boolean(),
    "timestamp": TIMESTAMP,
}

# What the platform itself records about each event. `_watermark` is the newest event time of the event's partition up
# to and including the event. So lateness is a function of the row alone: a stream, a restart and a backfill all decide
# alike.
LINEAGE = {"_partition": pl.Int32(), "_offset": pl.Int64(), "_arrived": TIMESTAMP, "_watermark": TIMESTAMP}

QUARANTINE = {
    "topic": pl.String(),
    "partition": pl.Int32(),
    "offset": pl.Int64(),
    "arrived": TIMESTAMP,
    "reasons": pl.List(pl.String()),
    "raw": pl.Binary(),
    "contract_version": pl.Int32(),
}


def is_history(offset: Expr) -> Expr:
    """Builds the condition on rows of the history of a new city, given their offset: it is negative.

    No Kafka message has a negative offset. `city.streaming.history` assigns them.
    """
    return offset < 0


def json_shape(contract: Contract) -> dict[str, pl.DataType]:
    """Returns the types of a message as JSON nests it: an object within the event is a struct."""
    flat = wire_schema(contract)
    shape = {name: kind for name, kind in flat.items() if contract.field(name).within is None}
    return shape | {
        name: pl.Struct({field.name: flat[field.name] for field in fields}) for name, fields in contract.objects.items()
    }


def wire_schema(contract: Contract) -> dict[str, pl.DataType]:
    """Returns the types of the fields of a message, one column for each. Times are still strings."""
    return {f.name: pl.String() if f.kind == "timestamp" else POLARS[f.kind] for f in contract.fields}


def event_schema(contract: Contract) -> dict[str, pl.DataType]:
    """Returns the types of an event's fields and of its derived cells."""
    fields: dict[str, pl.DataType] = {f.name: POLARS[f.kind] for f in contract.fields}
    return fields | {cell.name: pl.String() for cell in contract.cells}


def bronze_schema(contract: Contract) -> dict[str, pl.DataType]:
    """Returns the types of the columns of the contract's bronze table."""
    return event_schema(contract) | LINEAGE
