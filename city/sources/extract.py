"""Reads the values at a source's paths from raw messages: one column for each path, one row for each event.

The fast path is columnar: Polars parses a chunk of messages at once, by a schema that has only these paths. Where it
refuses a chunk, or may have misread a message, each message is read alone (`city.sources.inspection`), which gives the
reasons.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from city.sources.gtfs import feed_to_json
from city.sources.inspection import inspect_messages
from city.sources.model import ROOT, Format, FormatError, Source
from city.sources.ngsi import entities_to_json
from city.sources.paths import steps
from city.sources.repeated_keys import may_repeat_keys
from city.sources.rows import ITEM, NO_MISFITS, ROW, Reasons, row_schema
from city.sources.shape import UP, Shape, shape_of, when_column

_CHUNK = 8192
_BOM = b"\xef\xbb\xbf"
Reader = Callable[[bytes, Collection[str]], bytes]
"""Converts a message of another format to JSON, with the given parts of its items."""
_READERS: Mapping[Format, Reader] = {
    "gtfs_realtime": feed_to_json,
    "ngsi": lambda body, _: entities_to_json(body),
}


@dataclass(frozen=True)
class Extraction:
    """The values of messages."""

    frame: pl.DataFrame
    """A row for each event: a column for each path, and the columns of `city.sources.rows`."""
    refused: Reasons
    """The reasons against messages that cannot be read."""
    ignored: list[int]
    """The messages that do not fulfil the source's `when`."""


def extract(source: Source, payloads: Sequence[bytes]) -> Extraction:
    """Reads the values at the source's paths."""
    shape, refused, ignored = shape_of(source), Reasons(), list[int]()
    frames = [pl.DataFrame(schema=row_schema(shape))]
    if (reader := _READERS.get(source.format)) is not None:
        payloads = _read_all(reader, shape, payloads, refused)
    for first in range(0, len(payloads), _CHUNK):
        chunk = [_trimmed(source, payload) for payload in payloads[first : first + _CHUNK]]
        frame, others = _read_chunk(source, shape, chunk), list[int]()
        if frame is None:
            frame, reasons, others = inspect_messages(source, shape, chunk)
            refused = {first + row: reasons[row] for row in reasons} | refused
        elif source.when:
            frame, others = _split_others(source, frame)
        frames.append(frame.with_columns(pl.col(ROW) + first))
        ignored += [first + row for row in others]
    return Extraction(pl.concat(frames), refused, ignored)


def _read_all(reader: Reader, shape: Shape, payloads: Sequence[bytes], refused: Reasons) -> list[bytes]:
    """Converts messages to JSON. An unreadable one becomes empty bytes; its reason is added to `refused`."""
    parts = {steps(path)[0].name for path in shape.inside}
    messages = []
    for number, payload in enumerate(payloads):
        try:
            messages.append(reader(payload, parts))
        except FormatError as error:
            refused[number] = [f"message: {error}"]
            messages.append(b"")
    return messages


def _trimmed(source: Source, payload: bytes) -> bytes:
    return payload.removeprefix(_BOM) if "bom" in source.accepts else payload


def _read_chunk(source: Source, shape: Shape, payloads: Sequence[bytes]) -> pl.DataFrame | None:
    """Reads messages that are all of the shape. Returns None where Polars refuses one, or may have misread one."""
    if not shape.tree or (shape.items is not None and not shape.inside):
        return None  # without a path to read, Polars does not parse
    lines = [b'{"$":%b}' % payload for payload in payloads] if shape.items == ROOT else payloads
    text = b"\n".join(lines)
    if text.count(b"\n") != len(payloads) - 1:
        return None
    try:
        messages = pl.read_ndjson(text, schema=shape.schema)
    except pl.exceptions.PolarsError:
        return None
    if messages.height != len(payloads):
        return None
    # This check refuses a payload such as `[],"x":1`, too, which is JSON only within the braces of its line.
    if source.format == "json" and may_repeat_keys(shape, payloads, text, messages):
        return None
    rows = _rows(shape, messages)
    if rows is None:
        return None
    texts = [pl.col(name).str.contains(r"^[\[{]") for name, leaf in shape.paths.items() if leaf == "text"]
    if texts and rows.select(pl.any_horizontal(texts).any()).item():
        return None  # Polars reads an object in place of a text as text
    return rows


def _rows(shape: Shape, messages: pl.DataFrame) -> pl.DataFrame | None:
    """Returns a row for each event of messages that Polars has read. Returns None where one has no list of items."""
    row = pl.int_range(pl.len(), dtype=pl.Int64).alias(ROW)
    if shape.items is None:
        columns = [_at(path).alias(path) for path in shape.above]
        item = pl.lit(None, pl.Int64).alias(ITEM)
        return messages.select(*columns, row, item, NO_MISFITS)
    above = [_at(path).alias(UP + path) for path in shape.above]
    lists = messages.select(*above, row, _at(shape.items).alias("_items"))
    lengths = lists["_items"].list.len()
    if lengths.fill_null(0).min() == 0:
        return None  # a missing list and an empty one are different
    items = lists.with_columns(pl.int_ranges(0, lengths, dtype=pl.Int64).alias(ITEM)).explode("_items", ITEM)
    if items["_items"].has_nulls():
        return None  # null is no item
    inside = [_at(path, pl.col("_items")).alias(path) for path in shape.inside]
    return items.with_columns(*inside, NO_MISFITS).select(*row_schema(shape))


def _split_others(source: Source, rows: pl.DataFrame) -> tuple[pl.DataFrame, list[int]]:
    """Returns the rows of messages that fulfil the source's `when`, and the other messages."""
    fulfilled = pl.all_horizontal(
        pl.col(when_column(source, path)).fill_null("").is_in(list(words)) for path, words in source.when.items()
    )
    kept = rows.filter(fulfilled)
    others = rows.filter(~fulfilled) if kept.height < rows.height else rows.clear()
    return kept, others[ROW].unique().sort().to_list()


def _at(path: str, root: pl.Expr | None = None) -> pl.Expr:
    value = root
    for step in steps(path):
        if step.place is not None:
            assert value is not None  # a path begins with a name
            value = value.list.get(step.place, null_on_oob=True)
            continue
        value = pl.col(step.name) if value is None else value.struct.field(step.name)
        if step.key:
            item = pl.element()
            value = value.list.eval(item.filter(item.struct.field(step.key) == step.value)).list.first()
    assert value is not None
    return value
