"""Decodes raw JSON messages into typed, valid rows, and into quarantine records for the rest. Pure: no I/O, no clock.

The fast path is columnar. Polars parses all messages of a batch at once. It is strict about numbers, booleans and
nesting, but it accepts four things that a contract forbids: an undeclared field, a repeated key, a number in place of a
string, and an array of one string in place of a string. Counts detect these without a loop over rows in Python: in a
message without a backslash or a bracket every quote delimits a string, so the number of quotes and the number of keys
(`":`) have one possible value. Messages with other counts, and messages that Polars refuses, go one by one to
`inspect` (`city.streaming.strict_json`), which returns the reasons for each.
"""

from collections.abc import Iterable, Mapping
from itertools import compress
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson
import polars as pl

from city.contracts import validity
from city.contracts.cells import with_cells
from city.contracts.model import Contract
from city.contracts.schema import QUARANTINE, TIMESTAMP, bronze_schema, json_shape, wire_schema
from city.sources.times import ISO_8601, read_times, received
from city.streaming.records import Offsets, RawBatch
from city.streaming.strict_json import has_kind, inspect

_CHUNK = 8192  # messages; a message that Polars refuses costs a closer look only at its chunk
_QUOTE, _COLON, _SPACE, _NEWLINE = 0x22, 0x3A, 0x20, 0x0A


def decode(
    contract: Contract, raw: RawBatch, watermarks: Offsets, known: Mapping[str, pl.Series] = MappingProxyType({})
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Decodes a batch into rows (the contract's bronze schema) and quarantine records (QUARANTINE schema).

    Both are in the order of the batch. `watermarks` holds each partition's newest event time so far (microseconds
    since the epoch). `known` holds, by field, the ids that an event may have.
    """
    if not len(raw):
        return pl.DataFrame(schema=bronze_schema(contract)), pl.DataFrame(schema=QUARANTINE)
    parsed, refused = parse(contract, raw.values)
    coordinates = raw.coordinates()
    if parsed.height == len(raw):
        frame = pl.concat([parsed.drop("_row"), coordinates], how="horizontal")
    else:
        frame = pl.concat([parsed.drop("_row"), coordinates[parsed["_row"]]], how="horizontal")
    frame = frame.with_columns(_row=parsed["_row"])
    times = {f.name: read_times(frame[f.name], f.zone) for f in contract.of_kind("timestamp")}
    misread = _misread_times(frame, times)
    frame = frame.with_columns(**times)
    rows, invalid = validity.split(contract, frame)
    if misread:  # also where the field may be null
        rows = rows.filter(~pl.col("_row").is_in(list(misread)))
    rows, strange = _split_unknown(rows, known)
    rejects = _quarantine_records(contract, raw, coordinates, refused | strange, invalid, misread)
    return with_watermark(contract, with_cells(contract, rows), watermarks).select(*bronze_schema(contract)), rejects


def parse(contract: Contract, values: list[bytes | None]) -> tuple[pl.DataFrame, dict[int, list[str]]]:
    """Parses the messages that are JSON objects of the contract's shape.

    Returns a frame in the order of `values` (wire schema and `_row`, the index in `values`), and the reasons for each
    other message, by its index.
    """
    refused: dict[int, list[str]] = {}
    if None in values or max(map(len, values)) > contract.max_bytes:  # type: ignore[arg-type]
        for row, value in enumerate(values):
            if value is None:
                refused[row] = ["message: empty"]
            elif len(value) > contract.max_bytes:
                refused[row] = [f"message: {len(value):,} bytes, more than {contract.max_bytes:,}"]
    rows = [row for row in range(len(values)) if row not in refused] if refused else list(range(len(values)))
    one_by_one: list[int] = []
    frames = []
    # In chunks, so that a message that needs a closer look affects only the messages of its chunk.
    for first in range(0, len(rows), _CHUNK):
        chunk = rows[first : first + _CHUNK]
        frame, parsed_rows = _parse_chunk(contract, chunk, [values[row] for row in chunk])  # type: ignore[misc]
        frames.append(frame)
        if len(parsed_rows) < len(chunk):
            one_by_one += sorted(set(chunk).difference(parsed_rows))
    schema: dict[str, pl.DataType] = wire_schema(contract) | {"_row": pl.UInt32()}
    accepted: list[dict[str, object]] = []
    for row in one_by_one:
        try:
            event, reasons = inspect(contract, values[row] or b"")
        except Exception as error:
            event, reasons = None, _describe_fault(error)
        if event is None:
            refused[row] = reasons
        else:
            accepted.append(event | {"_row": row})
    frame = pl.concat([pl.DataFrame(schema=schema), *frames, *_to_frames(accepted, schema, refused)])
    return (frame.sort("_row") if accepted else frame), refused


def _to_frames(
    events: list[dict[str, Any]], schema: dict[str, pl.DataType], refused: dict[int, list[str]]
) -> list[pl.DataFrame]:
    """Returns frames of events. Polars may refuse a value: its message alone is then added to `refused`."""
    if not events:
        return []
    try:
        return [pl.DataFrame(events, schema=schema, orient="row")]
    except Exception as error:
        if len(events) == 1:
            refused[events[0]["_row"]] = _describe_fault(error)
            return []
    middle = len(events) // 2
    return [*_to_frames(events[:middle], schema, refused), *_to_frames(events[middle:], schema, refused)]


def _describe_fault(error: Exception) -> list[str]:
    """Returns a fault of the code as a reason against its message. Raised, it would stop the stream there for good."""
    return [f"message: it cannot be read ({type(error).__name__}: {error})"[:300]]


def with_watermark(contract: Contract, rows: pl.DataFrame, watermarks: Offsets) -> pl.DataFrame:
    """Adds `_watermark`, each partition's running maximum of event time, starting from `watermarks`."""
    if rows.is_empty():
        return rows.with_columns(_watermark=pl.lit(None, dtype=TIMESTAMP))
    running = pl.col(contract.event_time).cum_max()
    many = rows["_partition"].n_unique() > 1
    if not watermarks:
        return rows.with_columns(_watermark=running.over("_partition") if many else running)
    initial = pl.col("_partition").replace_strict(
        list(watermarks), list(watermarks.values()), default=0, return_dtype=pl.Int64
    )
    running = running.over("_partition") if many else running
    return rows.with_columns(_watermark=pl.max_horizontal(running, initial.cast(TIMESTAMP)))


def _parse_chunk(contract: Contract, rows: list[int], values: list[bytes]) -> tuple[pl.DataFrame, list[int]]:
    """Parses the rows that are certainly valid: returns their frame (wire schema and `_row`) and their indexes."""
    text = b"\n".join(values)
    frame = _read_ndjson(contract, text, len(rows))
    for check in (_have_shape, _are_objects, _have_types):  # each check is stricter, and costs more
        if frame is not None:
            break
        mask = list(check(contract, values))
        rows, values = list(compress(rows, mask)), list(compress(values, mask))
        text = b"\n".join(values)
        frame = _read_ndjson(contract, text, len(rows))
    if frame is None:
        return pl.DataFrame(schema=wire_schema(contract) | {"_row": pl.UInt32()}), []
    doubtful = _find_doubtful(contract, frame, text, values)
    frame = frame.with_columns(_row=pl.Series(rows, dtype=pl.UInt32))
    if doubtful is not None:
        frame = frame.filter(~doubtful)
        rows = frame["_row"].to_list()
    return frame, rows


def _read_ndjson(contract: Contract, text: bytes, count: int) -> pl.DataFrame | None:
    """Reads `count` rows. Returns None where a message stops the parser, or is more or less than one line."""
    if not count:
        return pl.DataFrame(schema=wire_schema(contract))
    if int(np.count_nonzero(np.frombuffer(text, np.uint8) == _NEWLINE)) != count - 1:
        return None
    try:
        frame = pl.read_ndjson(text, schema=json_shape(contract))
    except pl.exceptions.PolarsError:
        return None
    if contract.objects:
        frame = frame.unnest(*contract.objects).select(*wire_schema(contract))
    return frame if frame.height == count else None


def _have_shape(contract: Contract, values: list[bytes]) -> Iterable[bool]:
    """Returns which messages have the contract's rough shape: braces around as many keys as it has fields."""
    message = pl.Series([value if _is_utf8(value) else b"" for value in values], dtype=pl.Binary).cast(pl.String)
    keys = message.str.count_matches('":', literal=True)
    required = sum(not field.nullable for field in contract.fields)
    braces = message.str.starts_with("{") & message.str.ends_with("}")
    return braces & keys.is_between(required, len(contract.fields) + len(contract.objects))


def _are_objects(contract: Contract, values: list[bytes]) -> Iterable[bool]:
    """Returns which messages are JSON objects on one line."""
    return (type(_load_json(value)) is dict and b"\n" not in value for value in values)


def _have_types(contract: Contract, values: list[bytes]) -> Iterable[bool]:
    """Returns which messages have values of the contract's types. All messages are JSON objects."""

    def fits(event: dict[str, Any]) -> bool:
        objects = {name: event.get(name) or {} for name in contract.objects}
        if not all(type(nested) is dict for nested in objects.values()):
            return False
        fields = ((f.kind, (objects[f.within] if f.within else event).get(f.name)) for f in contract.fields)
        return all(value is None or has_kind(kind, value) for kind, value in fields)

    return (fits(_load_json(value)) for value in values)


def _load_json(message: bytes) -> Any:
    try:
        return orjson.loads(message)
    except orjson.JSONDecodeError:
        return None


def _is_utf8(message: bytes) -> bool:
    if message.isascii():
        return True
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True


def _find_doubtful(contract: Contract, frame: pl.DataFrame, joined: bytes, values: list[bytes]) -> pl.Series | None:
    """Returns which rows may have an undeclared field, a repeated key or a coerced string; None when none can have."""
    strings = [name for name, kind in wire_schema(contract).items() if kind == pl.String]
    # An object is present where any of its fields is. An empty or null object makes the counts differ, so `inspect`
    # decodes its message.
    objects = [pl.any_horizontal(pl.col(f.name).is_not_null() for f in fields) for fields in contract.objects.values()]
    nested = int(frame.select(pl.sum_horizontal(objects).sum()).item()) if objects else 0
    present = nested + sum(frame[name].count() for name in frame.columns)
    quoted = present + sum(frame[name].count() for name in strings)
    text = np.frombuffer(joined, np.uint8)
    quote = text == _QUOTE
    # `"key" :` hides a key from the count of `":`
    spaced = bool(np.any(quote[:-1] & (text[1:] <= _SPACE) & (text[1:] != _NEWLINE)))
    adds_up = (
        not spaced
        and b"\\" not in joined
        and b"[" not in joined
        and np.count_nonzero(quote) == 2 * quoted
        and np.count_nonzero(quote[:-1] & (text[1:] == _COLON)) == present
    )
    if adds_up:
        return None
    message = pl.Series("m", values, dtype=pl.Binary).cast(pl.String)
    keys = message.str.count_matches(r'"\s*:') if spaced else message.str.count_matches('":', literal=True)
    key_count = pl.sum_horizontal(pl.all().is_not_null(), *objects)
    counts = frame.select(present=key_count, quoted=key_count + pl.sum_horizontal(pl.col(strings).is_not_null()))
    return (
        message.str.contains(r"[\\\[]")
        | (keys != counts["present"])
        | (message.str.count_matches('"', literal=True) != 2 * counts["quoted"])
    )


def _split_unknown(rows: pl.DataFrame, known: Mapping[str, pl.Series]) -> tuple[pl.DataFrame, dict[int, list[str]]]:
    """Splits off rows with an id that is not known. Returns the rest, and the reasons by the index of the message."""
    reasons: dict[int, list[str]] = {}
    for field, ids in known.items():
        for row, value in rows.filter(~pl.col(field).is_in(ids.implode())).select("_row", field).iter_rows():
            reasons.setdefault(row, []).append(f"{field}: {value[:60]!r} has not been announced")
    return (rows.filter(~pl.col("_row").is_in(list(reasons))) if reasons else rows), reasons


def _misread_times(frame: pl.DataFrame, times: dict[str, pl.Series]) -> dict[int, dict[str, str]]:
    """Returns the texts that are no times, by the index of the message and the name of the field."""
    found: dict[int, dict[str, str]] = {}
    for name, read in times.items():
        if read.null_count() > frame[name].null_count():
            texts = frame.filter(read.is_null() & pl.col(name).is_not_null()).select("_row", name)
            for row, text in texts.iter_rows():
                found.setdefault(row, {})[name] = text
    return found


def _quarantine_records(
    contract: Contract,
    raw: RawBatch,
    coordinates: pl.DataFrame,
    refused: dict[int, list[str]],
    invalid: pl.DataFrame,
    misread: dict[int, dict[str, str]],
) -> pl.DataFrame:
    reasons = refused | dict(zip(invalid["_row"].to_list(), invalid["reasons"].to_list(), strict=True))
    for row, texts in misread.items():
        missing = {f"{name}: {validity.MISSING}" for name in texts}
        others = [reason for reason in reasons.get(row, []) if reason not in missing]
        reasons[row] = [f"{name}: {received(text)} is not {ISO_8601}" for name, text in texts.items()] + others
    if not reasons:
        return pl.DataFrame(schema=QUARANTINE)
    rows = sorted(reasons)
    return coordinates[rows].select(
        topic=pl.lit(contract.topic),
        partition="_partition",
        offset="_offset",
        arrived="_arrived",
        reasons=pl.Series([reasons[row] for row in rows], dtype=pl.List(pl.String)),
        raw=pl.Series([raw.values[row] for row in rows], dtype=pl.Binary),
        contract_version=pl.lit(contract.version, dtype=pl.Int32),
    )
