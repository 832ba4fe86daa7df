"""Derives a contract's silver table: its events deduplicated, on the local calendar, with their lineage."""

from collections.abc import Callable, Mapping

from city.contracts.model import Contract
from city.tables import calendar
from city.tables.model import Column, Frame, Source, Table

_LINEAGE = (
    Column(name="_partition", kind="integer", description="Kafka partition"),
    Column(name="_offset", kind="integer", description="Kafka offset"),
    Column(name="_arrived", kind="timestamp", description="when Kafka had it"),
)


def silver_table(
    contract: Contract,
    columns: tuple[Column, ...] = (),
    sources: Mapping[str, Source] | None = None,
    enrich: Callable[..., Frame] | None = None,
) -> Table:
    """Returns the silver table of a contract's events.

    A domain that knows more about them passes `enrich`. It takes the rows, and the further `sources` as keyword
    arguments, and adds `columns`.
    """

    def transform(**frames: Frame) -> Frame:
        rows = first_of(frames.pop(contract.name), contract.key, contract.event_time)
        rows = calendar.on_calendar(rows, contract.event_time, frames.pop("calendar"))
        return enrich(rows, **frames) if enrich else rows

    return Table(
        name=contract.name,
        layer="silver",
        description=f"{contract.description} Once for each `{contract.key}` and `{contract.event_time}`, on the local "
        "calendar.",
        key=(contract.key, contract.event_time),
        time=contract.event_time,
        columns=(*event_columns(contract), *columns, *calendar.COLUMNS, *_LINEAGE),
        sources={
            contract.name: Source(table=f"bronze/{contract.name}"),
            "calendar": Source(table="reference/calendar"),
            **(sources or {}),
        },
        transform=transform,
        hourly_slices=True,
    )


def latest_table(contract: Contract) -> Table:
    """Returns the table of the newest event of each key, for topics whose events are states."""

    def transform(**frames: Frame) -> Frame:
        newest = [contract.event_time, "_offset"]
        return frames[contract.name].unique([contract.key], keep="last", order_by=newest)

    return Table(
        name=contract.name,
        layer="silver",
        description=f"{contract.description} The newest for each `{contract.key}`.",
        key=(contract.key,),
        daily=False,
        columns=(*event_columns(contract), *_LINEAGE),
        sources={contract.name: Source(table=f"bronze/{contract.name}")},
        transform=transform,
    )


def log_table(contract: Contract) -> Table:
    """Returns the table that has every event once, for topics of few events that are not states."""

    def transform(**frames: Frame) -> Frame:
        return first_of(frames[contract.name], contract.key, contract.event_time)

    return Table(
        name=contract.name,
        layer="silver",
        description=f"{contract.description} Once for each `{contract.key}` and `{contract.event_time}`.",
        key=(contract.key, contract.event_time),
        time=contract.event_time,
        daily=False,
        columns=(*event_columns(contract), *_LINEAGE),
        sources={contract.name: Source(table=f"bronze/{contract.name}")},
        transform=transform,
    )


def first_of(rows: Frame, key: str, time: str) -> Frame:
    """Keeps one event of each key and time: the one that Kafka received first.

    Events with the same key and time are events that a device sent twice.
    """
    return rows.unique([key, time], keep="first", order_by=["_arrived", "_partition", "_offset"])


def event_columns(contract: Contract) -> tuple[Column, ...]:
    """Returns the columns of a contract's fields and of its derived cells."""
    fields = [
        Column(
            name=f.name,
            kind=f.kind,
            description=f.description,
            unit=f.unit,
            nullable=f.nullable,
            origins=(f"{contract.name}.{f.name}",),
        )
        for f in contract.fields
    ]
    cells = [
        Column(
            name=cell.name,
            kind="string",
            description=f"H3 cell, resolution {cell.resolution}",
            origins=(f"{contract.name}.{cell.latitude}", f"{contract.name}.{cell.longitude}"),
        )
        for cell in contract.cells
    ]
    return (*fields, *cells)
