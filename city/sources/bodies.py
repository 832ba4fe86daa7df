"""Splits the body of a request into messages. Pure.

A body is JSON (an object or a list), NDJSON, CSV with a header, or a feed in protobuf.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable

import orjson

from city.contracts.model import Contract, Kind
from city.sources.model import ROOT, Source

JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"
PROTOBUF = "application/x-protobuf"
_JSON_MEDIA = (JSON, "application/ld+json", "application/geo+json")
MEDIA = (*_JSON_MEDIA, NDJSON, CSV, PROTOBUF)
_SPACE = re.compile(r"[ \t\n\r]*")
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


class BodyError(ValueError):
    """Reports a body that cannot be split. The message names the line or the column, and the fix."""


def split_body(body: bytes, media: str, target: Contract | Source) -> list[bytes]:
    """Splits a body into the messages of its target.

    A list in JSON has a message in each item, but it is one message of a source whose messages are lists. A row of CSV
    becomes a JSON object. Its values have the kinds of a contract's fields, and are texts for a source. An empty cell
    is a missing value. Raises BodyError.
    """
    if media == PROTOBUF:
        return [body]
    text = body.removeprefix(b"\xef\xbb\xbf")
    if media == NDJSON:
        return [line for line in text.splitlines() if line.strip()]
    if media == CSV:
        return _csv_rows(text, target if isinstance(target, Contract) else None)
    if media not in _JSON_MEDIA:
        raise BodyError(f"{media or 'no content-type'} is not taken; send {', '.join(MEDIA)}")
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BodyError(f"not JSON: {error}") from None
    if not isinstance(content, list) or (isinstance(target, Source) and target.items == ROOT):
        return [text]
    try:
        return _items(text.decode())
    except RecursionError:
        raise BodyError("the JSON is nested too deep: send at most some hundred levels") from None


def _items(text: str) -> list[bytes]:
    """Returns the items of a list in valid JSON as they stand in it, so that a key that stands twice is still there."""
    decoder = json.JSONDecoder(parse_int=len, parse_float=len)  # only the ends count, and no number is too long
    items: list[bytes] = []
    at = _skip(text, _skip(text, 0) + 1)
    while text[at] != "]":
        _, end = decoder.raw_decode(text, at)
        items.append(text[at:end].encode())
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return items


def _skip(text: str, at: int) -> int:
    """Returns the place of the first character from `at` on that is no white space."""
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _csv_rows(text: bytes, contract: Contract | None) -> list[bytes]:
    try:
        rows = csv.reader(io.StringIO(text.decode(), newline=""), strict=True)
        header = next((row for row in rows if row), [])
        _check_names(header, contract)
        if repeated := sorted({name for name in header if header.count(name) > 1}):
            raise BodyError(f"the header has {', '.join(repeated)} twice: name each column once")
        if contract is not None:
            _check_header(header, contract)
        return [orjson.dumps(_object(rows.line_num, header, row, contract)) for row in rows if row]
    except UnicodeDecodeError as error:
        raise BodyError(f"not UTF-8 at byte {error.start}") from None
    except csv.Error as error:
        raise BodyError(f"not CSV: {error}") from None


def _check_names(header: list[str], contract: Contract | None) -> None:
    """Checks that a line can be a header of CSV, whatever its names are. Raises BodyError.

    A source ignores a first column without a name, which pandas writes for the index.
    """
    if not header:
        raise BodyError("the body is empty: send a header and rows")
    for delimiter, name in _DELIMITERS.items():
        if len(header) == 1 and delimiter in header[0]:
            raise BodyError(f"the header has {name} and no commas: separate the columns by commas")
    nameless = [place for place, name in enumerate(header, 1) if not name]
    if nameless and not (contract is None and nameless == [1]):
        raise BodyError(f"column {nameless[0]} has no name: is the header missing, or does the file have an index?")
    if spaced := [name for name in header if name != name.strip()]:
        raise BodyError(f"the header has spaces around {', '.join(map(str.strip, spaced))}: leave them out")


def _check_header(header: list[str], contract: Contract) -> None:
    names = [field.name for field in contract.fields]
    if unknown := [name for name in header if name not in names]:
        raise BodyError(f"columns {', '.join(unknown)} are no fields of {contract.name}; it has {', '.join(names)}")
    missing = [field.name for field in contract.fields if not field.nullable and field.name not in header]
    if missing:
        raise BodyError(f"the header has no column {', '.join(missing)}, which {contract.name} needs")


def _object(number: int, header: list[str], row: list[str], contract: Contract | None) -> dict[str, object]:
    if len(row) != len(header):
        raise BodyError(f"line {number} has {len(row)} cells, and the header {len(header)}")
    row_object: dict[str, object] = {}
    for name, cell in zip(header, row, strict=True):
        if cell == "":
            continue
        field = contract.field(name) if contract is not None else None
        nested = row_object
        if field is not None and field.within:
            nested = row_object.setdefault(field.within, {})  # type: ignore[assignment]
        nested[name] = _typed(field.kind, cell) if field is not None else cell
    return row_object


def _typed(kind: Kind, cell: str) -> object:
    """Converts a cell to the kind's JSON value.

    Returns the cell unchanged where it cannot be converted; the contract then rejects it.
    """
    readers: dict[Kind, Callable[[str], object]] = {"float": _finite, "integer": _whole, "boolean": _boolean}
    try:
        return readers[kind](cell.strip()) if kind in readers else cell
    except ValueError:
        return cell


def _finite(cell: str) -> float:
    number = float(cell)
    if "_" in cell or not math.isfinite(number):
        raise ValueError(cell)
    return number


def _whole(cell: str) -> int:
    number = int(cell)
    if "_" in cell or not -(2**63) <= number < 2**63:
        raise ValueError(cell)
    return number


def _boolean(cell: str) -> bool:
    if cell.lower() in _TRUE + _FALSE:
        return cell.lower() in _TRUE
    raise ValueError(cell)
