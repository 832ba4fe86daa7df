"""Raw JSON messages to typed, valid rows, and to quarantine records for the rest. Pure: no I/O, no clock.

The fast path is columnar. Polars parses all messages of a batch at once, strictly for numbers, booleans and nesting,
but it is silent about four things that a contract forbids: a field that is not declared, a key that stands twice, and
a number, or an array of one string, where a string belongs. Counting settles these without looking at a row in Python:
in a message without a backslash or a bracket every quote delimits a string, so quotes and keys (`":`) have one possible
count. Messages that do not add up, and those that Polars refuses, are read one by one by `inspect`, which says what is
wrong with each.
"""

import json
import math
from collections.abc import Iterable
from itertools import compress
from typing import Any

import numpy as np
import orjson
import polars as pl
import polars_h3

from city.contracts import validity
from city.contracts.model import Contract, Kind
from city.contracts.schema import QUARANTINE, TIMESTAMP, bronze_schema, json_shape, wire_schema
from city.streaming.records import Offsets, RawBatch

_CHUNK = 8192  # where a batch holds a message that Polars refuses, it is looked for in chunks of this many
_QUOTE, _COLON, _SPACE, _NEWLINE = 0x22, 0x3A, 0x20, 0x0A
_PYTHON: dict[Kind, tuple[type, ...]] = {
    "string": (str,),
    "timestamp": (str,),
    "float": (float, int),
    "integer": (int,),
    "boolean": (bool,),
}
_INT64 = range(-(2**63), 2**63)


def decode(contract: Contract, raw: RawBatch, watermarks: Offsets) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of the contract's bronze schema, and quarantine records (QUARANTINE schema), in the batch's order.

    `watermarks` holds each partition's newest event time so far (microseconds since the epoch).
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
    frame = frame.with_columns(parse_time(frame[f.name]) for f in contract.of_kind("timestamp"))
    rows, invalid = validity.split(contract, frame)
    rejects = _quarantine(contract, raw, coordinates, refused, invalid)
    rows = rows.with_columns(
        polars_h3.latlng_to_cell(c.latitude, c.longitude, c.resolution, return_dtype=pl.String).alias(c.name)
        for c in contract.cells
    )
    return with_watermark(contract, rows, watermarks).select(*bronze_schema(contract)), rejects


def parse(contract: Contract, values: list[bytes | None]) -> tuple[pl.DataFrame, dict[int, list[str]]]:
    """The messages that are JSON objects of the contract's shape, in order (wire schema and `_row`, the index in
    `values`), and for each other message why it is not."""
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
    # In chunks, so that a message which needs a closer look costs only its neighbours one too.
    for first in range(0, len(rows), _CHUNK):
        chunk = rows[first : first + _CHUNK]
        frame, kept = _parse_chunk(contract, chunk, [values[row] for row in chunk])  # type: ignore[misc]
        frames.append(frame)
        if len(kept) < len(chunk):
            one_by_one += sorted(set(chunk).difference(kept))
    schema: dict[str, Any] = wire_schema(contract) | {"_row": pl.UInt32()}
    accepted = []
    for row in one_by_one:
        event, reasons = inspect(contract, values[row] or b"")
        if event is None:
            refused[row] = reasons
        else:
            accepted.append(event | {"_row": row})
    if accepted:
        frames.append(pl.DataFrame(accepted, schema=schema, orient="row"))
    frame = pl.concat([pl.DataFrame(schema=schema), *frames])
    return (frame.sort("_row") if accepted else frame), refused


def inspect(contract: Contract, message: bytes) -> tuple[dict[str, Any] | None, list[str]]:
    """One message read slowly: the event, or every reason why it is not one."""
    try:
        pairs = _strict_json(message.decode())
    except UnicodeDecodeError as error:
        return None, [f"message: not UTF-8 at byte {error.start}"]
    except (ValueError, RecursionError) as error:
        return None, [f"message: not JSON: {error}"]
    if not isinstance(pairs, _Pairs):
        return None, [f"message: a JSON {type(pairs).__name__}, not an object"]
    event, reasons = _flat(contract, pairs)
    for field in contract.fields:
        value = event.get(field.name)
        if value is not None and not _fits(field.kind, value):
            reasons.append(f"{field.name}: {_kind(value)}, not a {field.kind}")
        elif isinstance(value, str) and not value.isprintable() and any("\ud800" <= c <= "\udfff" for c in value):
            reasons.append(f"{field.name}: holds half of a surrogate pair")
    if reasons:
        return None, [reason[:300] for reason in reasons]
    return {name: event.get(name) for name in wire_schema(contract)}, []


def parse_time(times: pl.Series) -> pl.Series:
    """ISO 8601 to UTC microseconds; null where it is not one. A time without an offset is taken as UTC."""
    found = _to_datetime(times, "%Y-%m-%dT%H:%M:%S%.f%#z")
    for layout in ("%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"):
        if found.null_count() == times.null_count():
            break
        found = found.zip_with(found.is_not_null(), _to_datetime(times, layout))
    return found


def with_watermark(contract: Contract, rows: pl.DataFrame, watermarks: Offsets) -> pl.DataFrame:
    """Adds `_watermark`, each partition's running maximum of event time, beginning from `watermarks`."""
    if rows.is_empty():
        return rows.with_columns(_watermark=pl.lit(None, dtype=TIMESTAMP))
    running = pl.col(contract.event_time).cum_max()
    many = rows["_partition"].n_unique() > 1
    if not watermarks:
        return rows.with_columns(_watermark=running.over("_partition") if many else running)
    known = pl.col("_partition").replace_strict(
        list(watermarks), list(watermarks.values()), default=0, return_dtype=pl.Int64
    )
    running = running.over("_partition") if many else running
    return rows.with_columns(_watermark=pl.max_horizontal(running, known.cast(TIMESTAMP)))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys as they stood."""


def _strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a JSON number")

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f"{digits[:40]} is too large a number")
        return value

    return json.loads(text, object_pairs_hook=_Pairs, parse_constant=refuse, parse_float=number)


def _flat(contract: Contract, pairs: _Pairs) -> tuple[dict[str, Any], list[str]]:
    """The fields of an event and of the objects within it, and what stands there without being declared, or twice."""
    event: dict[str, Any] = {}
    reasons: list[str] = []
    for within, of in (None, pairs), *((name, dict(pairs).get(name)) for name in contract.objects):
        path = f"{within}." if within else ""
        if of is None:
            continue
        if not isinstance(of, _Pairs):
            reasons.append(f"{within}: {_kind(of)}, not an object")
            continue
        known = {f.name for f in contract.fields if f.within == within} | ({*contract.objects} if not within else set())
        keys = [key for key, _ in of]
        reasons += [
            f"{path}{key}: not a field of {contract.name} v{contract.version}" for key in keys if key not in known
        ]
        reasons += [f"{path}{key}: stands twice" for key in dict.fromkeys(keys) if keys.count(key) > 1]
        event |= {key: value for key, value in of if key in known and key not in contract.objects}
    return event, reasons


def _fits(kind: Kind, value: Any) -> bool:
    if isinstance(value, bool) and kind != "boolean":
        return False
    if not isinstance(value, _PYTHON[kind]):
        return False
    return not isinstance(value, int) or isinstance(value, bool) or kind == "float" or value in _INT64


def _kind(value: Any) -> str:
    if isinstance(value, _Pairs):
        return "an object"
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "an array"}
    return names.get(type(value), type(value).__name__)


def _parse_chunk(contract: Contract, rows: list[int], values: list[bytes]) -> tuple[pl.DataFrame, list[int]]:
    """Of `rows` those that are surely what they seem: their frame (wire schema and `_row`) and their indexes."""
    text = b"\n".join(values)
    frame = _read_ndjson(contract, text, len(rows))
    for sound in (_shaped, _json, _typed):  # each looks closer, and costs more
        if frame is not None:
            break
        mask = list(sound(contract, values))
        rows, values = list(compress(rows, mask)), list(compress(values, mask))
        text = b"\n".join(values)
        frame = _read_ndjson(contract, text, len(rows))
    if frame is None:
        return pl.DataFrame(schema=wire_schema(contract) | {"_row": pl.UInt32()}), []
    doubtful = _doubtful(contract, frame, text, values)
    frame = frame.with_columns(_row=pl.Series(rows, dtype=pl.UInt32))
    if doubtful is not None:
        frame = frame.filter(~doubtful)
        rows = frame["_row"].to_list()
    return frame, rows


def _read_ndjson(contract: Contract, text: bytes, count: int) -> pl.DataFrame | None:
    """`count` rows, or None where a message stops the parser or is more or less than a line."""
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


def _shaped(contract: Contract, values: list[bytes]) -> Iterable[bool]:
    """Which messages look like the contract's from afar: braces around as many keys as it has fields."""
    message = pl.Series([value if _is_utf8(value) else b"" for value in values], dtype=pl.Binary).cast(pl.String)
    keys = message.str.count_matches('":', literal=True)
    required = sum(not field.nullable for field in contract.fields)
    braces = message.str.starts_with("{") & message.str.ends_with("}")
    return braces & keys.is_between(required, len(contract.fields) + len(contract.objects))


def _json(contract: Contract, values: list[bytes]) -> Iterable[bool]:
    """Which messages are JSON objects on one line."""
    return (type(_loads(value)) is dict and b"\n" not in value for value in values)


def _typed(contract: Contract, values: list[bytes]) -> Iterable[bool]:
    """Which messages, JSON objects all, have values of the contract's types."""

    def fits(event: dict[str, Any]) -> bool:
        objects = {name: event.get(name) or {} for name in contract.objects}
        if not all(type(of) is dict for of in objects.values()):
            return False
        found = ((f.kind, (objects[f.within] if f.within else event).get(f.name)) for f in contract.fields)
        return all(value is None or _fits(kind, value) for kind, value in found)

    return (fits(_loads(value)) for value in values)


def _loads(message: bytes) -> Any:
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


def _doubtful(contract: Contract, frame: pl.DataFrame, joined: bytes, values: list[bytes]) -> pl.Series | None:
    """Which rows may have an undeclared field, a repeated key or a coerced string; None when surely none has."""
    strings = [name for name, kind in wire_schema(contract).items() if kind == pl.String]
    # An object stands there where any of its fields does. One that is empty, or null, does not add up: it is looked at.
    objects = [pl.any_horizontal(pl.col(f.name).is_not_null() for f in of) for of in contract.objects.values()]
    nested = int(frame.select(pl.sum_horizontal(objects).sum()).item()) if objects else 0
    present = nested + sum(frame[name].count() for name in frame.columns)
    quoted = present + sum(frame[name].count() for name in strings)
    text = np.frombuffer(joined, np.uint8)
    quote = text == _QUOTE
    # `"key" :` would hide a key from a count of `":`
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
    found = pl.sum_horizontal(pl.all().is_not_null(), *objects)
    counts = frame.select(present=found, quoted=found + pl.sum_horizontal(pl.col(strings).is_not_null()))
    return (
        message.str.contains(r"[\\\[]")
        | (keys != counts["present"])
        | (message.str.count_matches('"', literal=True) != 2 * counts["quoted"])
    )


def _to_datetime(times: pl.Series, layout: str) -> pl.Series:
    found = times.str.to_datetime(layout, time_unit="us", strict=False)
    return found.dt.replace_time_zone("UTC") if found.dtype.time_zone is None else found.dt.convert_time_zone("UTC")  # type: ignore[attr-defined]


def _quarantine(
    contract: Contract, raw: RawBatch, coordinates: pl.DataFrame, refused: dict[int, list[str]], invalid: pl.DataFrame
) -> pl.DataFrame:
    reasons = refused | dict(zip(invalid["_row"].to_list(), invalid["reasons"].to_list(), strict=True))
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
