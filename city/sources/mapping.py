"""Maps messages of a source's shape to events of its contract, and gives the reasons against the others. Pure.

The mapping is vectorised. Reasons are computed only for the rows that have one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from city.contracts.model import Contract
from city.contracts.schema import POLARS, TIMESTAMP
from city.sources.attributes import as_objects
from city.sources.extract import extract
from city.sources.model import At, Source, Value
from city.sources.paths import alternatives
from city.sources.plan import ARRIVAL, TOPIC, Check, Measure, output, plan, raw_value
from city.sources.reasons import with_item
from city.sources.rows import ITEM, MISFITS, ROW, Reasons

_MOST_REASONS = 20


@dataclass(frozen=True)
class MappedFrame:
    """The result of mapping messages."""

    events: pl.DataFrame
    """The contract's fields of each event, and `_row`, the index of its message."""
    rejected: Reasons
    """The reasons against messages of which no event, or not every event, could be made."""
    ignored: list[int]
    """The messages that do not fulfil the source's `when`."""


def map_messages(
    source: Source,
    payloads: Sequence[bytes],
    topics: Sequence[str] = (),
    zone: str = "UTC",
    arrived: datetime | None = None,
) -> MappedFrame:
    """Maps messages to events.

    `topics` are the MQTT topics, one for each message, of a source that names parts of them. `zone` is the city's.
    `arrived` is when the messages arrived, for devices without a clock.
    """
    if source.has_attribute_topics and topics:
        payloads, topics = as_objects(source, payloads, topics)
    extraction = extract(source, payloads)
    rejections = _Rejections(extraction.refused)
    rows = extraction.frame.with_columns(pl.lit(arrived, TIMESTAMP).alias(ARRIVAL))
    if source.parts:
        by_message = pl.Series(TOPIC, topics or [None] * len(payloads), dtype=pl.String)
        rows = rows.with_columns(by_message.gather(rows[ROW]))
    rows = _without_misfits(source, _without_skipped(source, rows), rejections)
    mapping = plan(source, zone)
    rows = rejections.split(rows.with_columns(mapping.columns), mapping.checks)
    rejections.add(rows, mapping.measure_checks)
    if mapping.measures:
        rows = _to_measures(rows, mapping.measures)
    for column, checks in mapping.joins:
        rows = rejections.split(rows.with_columns(column), checks)
    columns = [
        pl.col(output(f.name)).alias(f.name)
        if output(f.name) in rows.columns
        else pl.lit(None, POLARS[f.kind]).alias(f.name)
        for f in source.contract.fields
    ]
    return MappedFrame(rows.select(*columns, ROW), rejections.by_message(), extraction.ignored)


class _Rejections:
    """Collects the reasons against messages."""

    def __init__(self, refused: Reasons) -> None:
        self._reasons: dict[int, list[tuple[int, str]]] = {
            row: [(-1, reason) for reason in reasons] for row, reasons in refused.items()
        }

    def note(self, row: int, item: int | None, reason: str) -> None:
        """Notes a reason against an item of a message, or against a message without items."""
        self._reasons.setdefault(row, []).append((-1 if item is None else item, with_item(item, reason)))

    def add(self, rows: pl.DataFrame, checks: Sequence[Check]) -> pl.Series | None:
        """Notes the reasons of checks, and returns which rows have one (None where no row has)."""
        if not checks or rows.is_empty():
            return None
        wrong = rows.select(pl.any_horizontal(check.is_wrong for check in checks).fill_null(value=False)).to_series()
        if not wrong.any():
            return None
        for check in checks:
            for noted in rows.filter(wrong).filter(check.is_wrong).select(ROW, ITEM, check.reason).iter_rows():
                self.note(*noted)
        return wrong

    def split(self, rows: pl.DataFrame, checks: Sequence[Check]) -> pl.DataFrame:
        """Notes the reasons of checks, and returns the rows without one."""
        wrong = self.add(rows, checks)
        return rows if wrong is None else rows.filter(~wrong)

    def by_message(self) -> Reasons:
        """Returns the first reasons against each message, in the order of its items."""
        in_order = {row: sorted(noted, key=lambda pair: pair[0]) for row, noted in sorted(self._reasons.items())}
        return {
            row: list(dict.fromkeys(reason for _, reason in noted))[:_MOST_REASONS] for row, noted in in_order.items()
        }


def _without_skipped(source: Source, rows: pl.DataFrame) -> pl.DataFrame:
    """Removes the rows that a value with `skips` leaves out. A row whose value there is unreadable is kept."""
    for value in (*source.names.values(), *source.fields.values()):
        if value.skips:
            raw, _ = raw_value(source, value)
            words = [str(word) for word in value.words]
            is_wanted = raw.cast(pl.String).is_in(words) if words else raw.is_not_null()
            path = pl.element().struct.field("path")
            is_unreadable = pl.col(MISFITS).list.eval(path.is_in(["", *_paths(value)])).list.any()
            rows = rows.filter(is_wanted.fill_null(value=False) | is_unreadable)
    return rows


def _without_misfits(source: Source, rows: pl.DataFrame, rejections: _Rejections) -> pl.DataFrame:
    """Notes the reasons against values of a wrong type, and removes the rows that need these values.

    Where only a measure has a wrong type, the other measures of the message are events.
    """
    is_right = rows[MISFITS].list.len() == 0
    if is_right.all():
        return rows
    needed = (
        {path for value in (*source.names.values(), *source.fields.values()) for path in _paths(value)}
        | {""}
        | _unit_paths(source)
    )
    kept = is_right.to_list()
    for place, (row, item, misfits) in enumerate(rows.select(ROW, ITEM, MISFITS).iter_rows()):
        for misfit in misfits:
            path = f"{misfit['path']}: " if misfit["path"] else ""
            rejections.note(row, item, path + misfit["reason"])
        kept[place] = not any(misfit["path"] in needed for misfit in misfits)
    return rows.filter(pl.Series(kept, dtype=pl.Boolean))


def _paths(value: Value) -> tuple[str, ...]:
    return alternatives(value.path) if isinstance(value, At) else ()


def _unit_paths(source: Source) -> set[str]:
    """Returns the paths of the units that messages name. Without its unit, no measure of a message is known."""
    return {value.unit_at for value in source.measures.values() if isinstance(value, At) and value.unit_at}


def _to_measures(rows: pl.DataFrame, measures: Sequence[Measure]) -> pl.DataFrame:
    """Returns a row for each measure that has a value, in the order of the rows and of the measures."""
    rows = rows.select(ROW, ITEM, pl.col(f"^{output('')}.*$")).with_row_index("_place")
    parts = []
    for number, measure in enumerate(measures):
        present = rows.filter(pl.col(measure.column).is_not_null())
        parts.append(present.with_columns(*measure.columns, pl.lit(number).alias("_measure")))
    return pl.concat(parts).sort("_place", "_measure")


def to_json(contract: Contract, events: pl.DataFrame) -> list[bytes]:
    """Returns events as the messages of the contract's topic."""
    times = [pl.col(f.name).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ") for f in contract.of_kind("timestamp")]
    written = events.with_columns(times)
    flat = [f.name for f in contract.fields if f.within is None]
    objects = [pl.struct(f.name for f in fields).alias(name) for name, fields in contract.objects.items()]
    return written.select(*flat, *objects).write_ndjson().encode().splitlines()
