"""Decodes one JSON message on the slow path, and names every reason why a contract forbids it."""

import json
import math
from collections import Counter

from city.contracts.model import Contract, Kind
from city.contracts.schema import wire_schema
from city.sources.times import ISO_8601, received

_PYTHON: dict[Kind, tuple[type, ...]] = {
    "string": (str,),
    "timestamp": (str,),
    "float": (float, int),
    "integer": (int,),
    "boolean": (bool,),
}
_INT64 = range(-(2**63), 2**63)
_MOST_REASONS = 20
"""The most reasons that are given for one message. A message of a megabyte may have a hundred thousand wrong keys."""


def inspect(contract: Contract, message: bytes) -> tuple[dict[str, object] | None, list[str]]:
    """Decodes one message on the slow path. Returns the event, or None and every reason why it is not valid."""
    try:
        pairs = _load_strict_json(message.decode())
    except UnicodeDecodeError as error:
        return None, [f"message: not UTF-8 at byte {error.start}"]
    except (ValueError, RecursionError) as error:
        return None, [f"message: not JSON: {error}"]
    if not isinstance(pairs, _Pairs):
        return None, [f"message: {_json_kind(pairs)}, not an object"]
    event, reasons = _flatten(contract, pairs)
    for field in contract.fields:
        value = event.get(field.name)
        if value is not None and not has_kind(field.kind, value):
            reasons.append(f"{field.name}: {_received(field.kind, value)}")
        elif isinstance(value, str) and not value.isprintable() and any("\ud800" <= c <= "\udfff" for c in value):
            reasons.append(f"{field.name}: holds half of a surrogate pair")
    for field in contract.of_kind("float"):
        if isinstance(event.get(field.name), int):
            try:
                event[field.name] = float(event[field.name])  # type: ignore[arg-type]
            except OverflowError:
                reasons.append(f"{field.name}: a number of {len(str(event[field.name])):,} digits, too large")
    if reasons:
        return None, [_printable(reason[:300]) for reason in reasons[:_MOST_REASONS]]
    return {name: event.get(name) for name in wire_schema(contract)}, []


class _Pairs(list[tuple[str, object]]):
    """A JSON object as key-value pairs in their original order, with repeated keys."""


def _load_strict_json(text: str) -> object:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a JSON number")

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f"{digits[:40]} is too large a number")
        return value

    return json.loads(text, object_pairs_hook=_Pairs, parse_constant=refuse, parse_float=number)


def _flatten(contract: Contract, pairs: _Pairs) -> tuple[dict[str, object], list[str]]:
    """Returns the fields of an event and of its nested objects, and the reasons for undeclared and repeated keys."""
    event: dict[str, object] = {}
    reasons: list[str] = []
    for within, nested in (None, pairs), *((name, dict(pairs).get(name)) for name in contract.objects):
        path = f"{within}." if within else ""
        if nested is None:
            continue
        if not isinstance(nested, _Pairs):
            reasons.append(f"{within}: {_json_kind(nested)}, not an object")
            continue
        names = {f.name for f in contract.fields if f.within == within} | ({*contract.objects} if not within else set())
        counts = Counter(key for key, _ in nested)
        reasons += [
            f"{path}{key}: not a field of {contract.name} v{contract.version}" for key in counts if key not in names
        ]
        reasons += [f"{path}{key}: stands {count} times" for key, count in counts.items() if count > 1]
        event |= {key: value for key, value in nested if key in names and key not in contract.objects}
    return event, reasons


def _printable(text: str) -> str:
    """Returns a text that can be stored: a key may have half of a surrogate pair."""
    return text.encode(errors="backslashreplace").decode()


def has_kind(kind: Kind, value: object) -> bool:
    """Returns whether a value of JSON has the type of a field's kind. An integer must fit into 64 bits."""
    if isinstance(value, bool) and kind != "boolean":
        return False
    if not isinstance(value, _PYTHON[kind]):
        return False
    return not isinstance(value, int) or isinstance(value, bool) or kind == "float" or value in _INT64


def _received(kind: Kind, value: object) -> str:
    """Names the form received and the form expected."""
    found = _json_kind(value) if isinstance(value, list) else f"{_json_kind(value)} ({json.dumps(value)[:60]})"
    if kind != "timestamp":
        return f"{found}, not a {kind}"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{received(value) if number else found} is not {ISO_8601}"


def _json_kind(value: object) -> str:
    if isinstance(value, _Pairs):
        return "an object"
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "an array"}
    return names.get(type(value), "null")
