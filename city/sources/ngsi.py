"""Reads entities of NGSI-LD and NGSI v2 in all their forms as one JSON form. Pure.

A body is an entity, a list of entities, a notification of a broker, or GeoJSON. An attribute is normalized
(`{"type": "Property", "value": 3.3, "unitCode": "CEL"}`), concise, simplified (`3.3`), temporal (a list of instances,
or `values`), or a typed value of JSON-LD (`{"@type": "DateTime", "@value": "…"}`), with short or expanded names. The
forms are those of ETSI GS CIM 009 (NGSI-LD API), clause 4.5, and of the FIWARE-NGSI v2 specification.
"""

import re
from collections.abc import Iterator
from typing import Any

import orjson

from city.sources.model import FormatError

ENTITIES = "entities"
"""The path of the list of entities. Each attribute of one is an object with its `value` and, if known, its `unit`."""

_NAMES = {
    "hasValue": "value",
    "hasObject": "object",
    "hasLanguageMap": "languageMap",
    "hasVocab": "vocab",
    "@id": "id",
    "@type": "type",
}
"""The names of expanded JSON-LD, after their namespace, and the short ones."""
_NAMESPACE = re.compile(r"^\w+://\S*[/#]")
_VALUES = ("value", "object", "vocab", "json")
_HEAD = ("id", "type")
_NULL = "urn:ngsi-ld:null"
_INTERVAL = re.compile(r"^\d{4}-\d\d-\d\dT[^/]*/(\d{4}-\d\d-\d\dT[^/]*)$")


def entities_to_json(body: bytes) -> bytes:
    """Returns the entities of a body as `{"entities": [{"id": …, "type": …, "<attribute>": {"value": …}}]}`.

    Attributes that were observed at different times become an entity for each time, with `observedAt`. Raises
    FormatError for a body without entities.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise FormatError(f"not JSON: {error}") from None
    found = [entity for raw in _list_entities(content, None) for entity in _split_by_time(raw)]
    return orjson.dumps({ENTITIES: found})


def _list_entities(content: Any, notified: Any) -> Iterator[dict[str, Any]]:
    """Yields the entities of a body, with short names. `notified` is the time of the notification around them."""
    if isinstance(content, list):
        for item in content:
            yield from _list_entities(item, notified)
        return
    if not isinstance(content, dict):
        raise FormatError("neither an entity of NGSI, nor a list of entities, nor a notification")
    content = {_short(name): value for name, value in content.items()}
    kind = _name_of(content.get("type"))
    if isinstance(content.get("data"), list | dict) and (kind == "Notification" or "subscriptionId" in content):
        yield from _list_entities(content["data"], content.get("notifiedAt"))
    elif kind == "FeatureCollection":
        yield from _list_entities(content.get("features"), notified)
    elif kind == "Feature" and isinstance(content.get("properties"), dict):
        properties = {"location": content.get("geometry"), **content["properties"]}
        yield from _list_entities({"id": content.get("id"), **properties}, notified)
    else:
        yield content | ({} if notified is None else {"notifiedAt": notified})


def _split_by_time(entity: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the entity, once for each time at which its attributes were observed.

    A number belongs to its time alone. What is no number, as a place or a device, belongs to all of them.
    """
    head = {name: _name_of(entity[name]) for name in _HEAD if entity.get(name) is not None}
    shared: dict[str, Any] = {}
    dated: dict[str | None, dict[str, Any]] = {}
    for name, raw in entity.items():
        if name in _HEAD or name == "@context":
            continue
        instances = list(_read_instances(raw))
        for instance, observed in instances:
            if isinstance(instance["value"], int | float) or len(instances) > 1:
                dated.setdefault(observed, {})[name] = instance
            else:
                shared[name] = instance
    for observed, attributes in (dated or {None: dict[str, Any]()}).items():
        at = {} if observed is None else {"observedAt": {"value": observed}}
        yield {**head, **shared, **attributes, **at}


def _read_instances(raw: Any) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Yields the instances of an attribute: each its value and unit, and the time at which it was observed."""
    if isinstance(raw, list) and raw and all(_is_attribute(item) for item in raw):
        for item in raw:
            yield from _read_instances(item)
        return
    if not _is_attribute(raw):
        yield {"value": _plain(raw)}, None
        return
    attribute = {_short(name): value for name, value in raw.items()}
    metadata = attribute.get("metadata")
    about = {**(metadata if isinstance(metadata, dict) else {}), **attribute}
    code = _value_of(about.get("unitCode"))
    unit = {} if code is None else {"unit": _short(str(code))}
    observed = _value_of(about.get("observedAt", about.get("TimeInstant")))
    values = attribute.get("values")
    if isinstance(values, list):
        for item in values:
            if isinstance(item, list) and item:  # of the simplified temporal form: a value and its time
                yield {"value": _plain(item[0]), **unit}, _time(item[1] if len(item) > 1 else observed)
            else:
                for instance, at in _read_instances(item):
                    yield {**unit, **instance}, at or _time(observed)
        return
    value = next((attribute[name] for name in _VALUES if name in attribute), None)
    yield {"value": _plain(value), **unit}, _time(observed)


def _is_attribute(raw: Any) -> bool:
    return isinstance(raw, dict) and any(_short(name) in (*_VALUES, "values") for name in raw)


def _value_of(raw: Any) -> Any:
    """Returns the value of what may be an attribute, as metadata are in NGSI v2, or a value."""
    raw = raw[0] if isinstance(raw, list) and raw else raw
    return _plain(raw["value"] if isinstance(raw, dict) and "value" in raw else raw)


def _plain(value: Any) -> Any:
    """Returns a value without the type of JSON-LD. An interval becomes its end, and only a point has coordinates."""
    while isinstance(value, list) and len(value) == 1 and not isinstance(value[0], int | float):
        value = value[0]
    if isinstance(value, dict):
        for name in ("@value", "@id"):
            if name in value:
                return _plain(value[name])
        names = {_short(name): inner for name, inner in value.items()}
        if "coordinates" in names and _first(names.get("type")) != "Point":
            del names["coordinates"]
        return {name: _plain(inner) for name, inner in names.items()}
    if isinstance(value, str) and (interval := _INTERVAL.match(value)):
        return interval[1]
    return None if value == _NULL else value


def _time(value: Any) -> str | None:
    return None if value is None else str(value)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _name_of(value: Any) -> str:
    """Returns an id as it is, and the short name of a type."""
    return _short(str(_first(value)))


def _short(name: str) -> str:
    """Returns a name without its namespace: `temperature` of `https://smartdatamodels.org/…/temperature`."""
    name = _NAMESPACE.sub("", name)
    return _NAMES.get(name, name)
