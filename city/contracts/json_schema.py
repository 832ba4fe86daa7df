"""Generates the JSON Schema (draft 2020-12) that is published for a contract, for producers in any language."""

from collections.abc import Sequence
from typing import Any

from city.contracts.model import MAX_STRING, Contract, Field

_TYPES = {"string": "string", "float": "number", "integer": "integer", "boolean": "boolean", "timestamp": "string"}


JsonSchema = dict[str, Any]
"""A JSON Schema, or a part of one: each keyword has values of its own type."""


def json_schema(contract: Contract) -> JsonSchema:
    """Returns the schema of a contract's messages.

    It accepts what `city.streaming.decode` accepts. The contract's rules are the exception: the schema only states them
    in words.
    """
    schema: JsonSchema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:city:{contract.topic}:{contract.version}",
        "title": contract.name,
        "description": contract.description,
        "type": "object",
        **_object_schema([field for field in contract.fields if field.within is None]),
    }
    for name, fields in contract.objects.items():
        schema["properties"][name] = {"type": "object", **_object_schema(fields)}
        if any(not field.nullable for field in fields):
            schema["required"].append(name)
    if quantities := contract.quantities:
        schema["allOf"] = [
            {
                "if": {"properties": {quantities.by: {"const": quantity.name}}},
                "then": {
                    "properties": {
                        quantities.unit: {"const": quantity.unit},
                        quantities.value: {"minimum": quantity.minimum, "maximum": quantity.maximum},
                    }
                },
            }
            for quantity in quantities.choices
        ]
    if contract.rules:
        schema["$comment"] = "; ".join(f"{rule.name}: {rule.description}" for rule in contract.rules)
    return schema


def _object_schema(fields: Sequence[Field]) -> JsonSchema:
    return {
        "properties": {field.name: _field_schema(field) for field in fields},
        "required": [field.name for field in fields if not field.nullable],
        "additionalProperties": False,
    }


def _field_schema(field: Field) -> JsonSchema:
    kind = _TYPES[field.kind]
    schema: JsonSchema = {"type": [kind, "null"] if field.nullable else kind, "description": field.description}
    if field.unit:
        schema["description"] += f" [{field.unit}]"
    if field.kind == "timestamp":
        schema["format"] = "date-time"
    if field.choices:
        schema["enum"] = [*field.choices, *([None] if field.nullable else [])]
    elif field.kind == "string":
        schema["maxLength"] = MAX_STRING
        if field.pattern:
            schema["pattern"] = f"^(?:{field.pattern})$"
    if field.minimum is not None:
        schema["minimum"] = field.minimum
    if field.maximum is not None:
        schema["maximum"] = field.maximum
    return schema
