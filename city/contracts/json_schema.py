"""The JSON Schema (draft 2020-12) that is published for a contract, for producers in any language."""

from collections.abc import Sequence
from typing import Any

from city.contracts.model import MAX_STRING, Contract, Field

_TYPES = {"string": "string", "float": "number", "integer": "integer", "boolean": "boolean", "timestamp": "string"}


def json_schema(contract: Contract) -> dict[str, Any]:
    """A schema that accepts what `city.streaming.decode` accepts, but for the rules, which it states in words."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:city:{contract.topic}:{contract.version}",
        "title": contract.name,
        "description": contract.means,
        "type": "object",
        **_object([field for field in contract.fields if field.within is None]),
    }
    for name, fields in contract.objects.items():
        schema["properties"][name] = {"type": "object", **_object(fields)}
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
            for quantity in quantities.of
        ]
    if contract.rules:
        schema["$comment"] = "; ".join(f"{rule.name}: {rule.means}" for rule in contract.rules)
    return schema


def _object(fields: Sequence[Field]) -> dict[str, Any]:
    return {
        "properties": {field.name: _property(field) for field in fields},
        "required": [field.name for field in fields if not field.nullable],
        "additionalProperties": False,
    }


def _property(field: Field) -> dict[str, Any]:
    kind: Any = _TYPES[field.kind]
    found: dict[str, Any] = {"type": [kind, "null"] if field.nullable else kind, "description": field.means}
    if field.unit:
        found["description"] += f" [{field.unit}]"
    if field.kind == "timestamp":
        found["format"] = "date-time"
    if field.choices:
        found["enum"] = [*field.choices, *([None] if field.nullable else [])]
    elif field.kind == "string":
        found["maxLength"] = MAX_STRING
        if field.pattern:
            found["pattern"] = f"^(?:{field.pattern})$"
    if field.minimum is not None:
        found["minimum"] = field.minimum
    if field.maximum is not None:
        found["maximum"] = field.maximum
    return found
