"""Checks the events of a request by their contract. Texts are checked as columns, so that large requests stay fast."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl

from city.contracts.model import Field
from city.contracts.validity import span, words
from city.models.raw_event import RawEvent
from city.serving.inputs import Value
from city.sources.times import ISO_8601, read_times, received

Event = Mapping[str, Value]
_Noted = tuple[int, str, str]
"""The index of an event, its field and the advice."""


def find_errors(
    raw_event: RawEvent, events: Sequence[Event], paths: Sequence[str], now: datetime
) -> list[tuple[str, str]]:
    """Returns path and advice for each wrong field of the events, in their order. `paths` are the events' own."""
    fields = {field.name: field for field in raw_event.contract.fields}
    noted: list[_Noted] = []
    texts: dict[str, list[tuple[int, str]]] = {}
    for number, event in enumerate(events):
        noted += [(number, name, "is missing") for name in raw_event.needed if event.get(name) is None]
        for name, value in event.items():
            field = fields.get(name)
            if field is None:
                if name not in raw_event.unused:
                    advice = f"is no field of {raw_event.contract.name}: leave it out"
                    noted.append((number, name[:60], advice))
            elif value is not None and (wrong := _what_is_wrong(field, value)):
                noted.append((number, name, wrong))
            elif isinstance(value, str) and (field.kind == "timestamp" or field.pattern):
                texts.setdefault(name, []).append((number, value))
    for name, values in texts.items():
        if fields[name].kind == "timestamp":
            noted += _wrong_times(raw_event, fields[name], values, now)
        else:
            noted += _wrong_patterns(fields[name], values)
    return [(f"{paths[number]}.{name}", advice) for number, name, advice in sorted(noted, key=lambda error: error[0])]


def _what_is_wrong(field: Field, value: Value) -> str | None:
    """Returns what is wrong with the type or the range of a value, or None.

    A word that is not among the field's choices is not wrong. The form of a text is checked elsewhere.
    """
    if field.kind in ("float", "integer"):
        if isinstance(value, bool | str) or value is None or not math.isfinite(value):
            return "is no number"
        low = -math.inf if field.minimum is None else field.minimum
        high = math.inf if field.maximum is None else field.maximum
        if not low <= value <= high:
            is_bounded = field.minimum is not None and field.maximum is not None
            return f"is {'outside' if is_bounded else 'not'} {span(field.minimum, field.maximum, field.unit)}"
        return "is no whole number" if field.kind == "integer" and value != int(value) else None
    if field.kind == "boolean":
        return None if isinstance(value, bool) else "is neither true nor false"
    return None if isinstance(value, str) else "is no text"


def _wrong_times(raw_event: RawEvent, field: Field, values: Sequence[tuple[int, str]], now: datetime) -> list[_Noted]:
    contract = raw_event.contract
    ahead, age = contract.max_ahead, contract.max_age
    noted = []
    times = read_times(pl.Series([text for _, text in values], dtype=pl.String), field.zone)
    for (number, text), time in zip(values, times.to_list(), strict=True):
        if time is None:
            noted.append((number, field.name, f"is {received(text)}, not {ISO_8601}"))
        elif field.name == contract.event_time and time > now + ahead:
            noted.append((number, field.name, f"is more than {words(ahead)} ahead"))
        elif field.name == contract.event_time and time < now - age:
            noted.append((number, field.name, f"is more than {words(age)} old"))
    return noted


def _wrong_patterns(field: Field, values: Sequence[tuple[int, str]]) -> list[_Noted]:
    texts = pl.Series([text for _, text in values], dtype=pl.String)
    matches = texts.str.contains(f"^(?:{field.pattern})$").to_list()
    return [
        (number, field.name, f"does not match {field.pattern}")
        for (number, _), is_match in zip(values, matches, strict=True)
        if not is_match
    ]
