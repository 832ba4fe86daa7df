"""Generates TypeScript types from the schemas of an OpenAPI document, for the dashboard."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
_HEAD = "// Generated from the server's OpenAPI document by `make docs`. Do not edit: change the models in Python."
_WIDTH = 116
_NAME = re.compile(r"^[A-Za-z_$][\w$]*$")
_NO_CONSTRAINT = {"title", "description", "default", "examples", "deprecated"}
_SIMPLE = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


class UnknownSchema(ValueError):
    """A schema that has no TypeScript type here. The message has the schema."""


def typescript(document: Mapping[str, Any]) -> str:
    """Returns a module that exports a type for each schema of the document's components. Raises UnknownSchema."""
    schemas: Mapping[str, Schema] = document["components"]["schemas"]
    declarations = ["\n".join(_declare(name, schema)) for name, schema in sorted(schemas.items())]
    return "\n\n".join([_HEAD, *declarations]) + "\n"


def _declare(name: str, schema: Schema) -> Iterator[str]:
    yield from _comment(schema, "")
    if "properties" not in schema:
        yield f"export type {name} = {_type_of(schema)};"
        return
    yield f"export interface {name} {{"
    required = schema.get("required", [])
    for field, value in schema["properties"].items():
        yield from _comment(value, "  ")
        yield f"  {_key(field)}{'' if field in required else '?'}: {_type_of(value)};"
    if schema.get("additionalProperties"):  # the type of an index signature must include those of the fields
        yield "  [field: string]: unknown;"
    yield "}"


def _comment(schema: Schema, indent: str) -> Iterator[str]:
    """The description as a comment, in lines of at most `_WIDTH` characters where it has spaces."""
    words = schema.get("description", "").replace("*/", "").split()
    if not words:
        return
    text = " ".join(words)
    if len(indent) + len(text) + 7 <= _WIDTH:
        yield f"{indent}/** {text} */"
        return
    yield f"{indent}/**"
    line = f"{indent} *"
    for word in words:
        if len(line) + 1 + len(word) > _WIDTH:
            yield line
            line = f"{indent} *"
        line += f" {word}"
    yield line
    yield f"{indent} */"


def _type_of(schema: Schema) -> str:
    """The type of a schema, as an expression. Raises UnknownSchema."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema:
        return _literal(schema["const"])
    if "enum" in schema:
        return " | ".join(map(_literal, schema["enum"]))
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " | ".join(dict.fromkeys(map(_type_of, schema[union])))
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(dict.fromkeys(_type_of({**schema, "type": one_kind}) for one_kind in kind))
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if kind == "array":
        return _array(schema)
    if kind == "object":
        return _object(schema)
    if schema.keys() <= _NO_CONSTRAINT:
        return "unknown"
    raise UnknownSchema(f"no TypeScript type for the schema {json.dumps(schema)}")


def _array(schema: Schema) -> str:
    items = schema.get("items")
    if "prefixItems" not in schema:
        return _list_of(items or {})
    members = [_type_of(item) for item in schema["prefixItems"]]
    if items is not None:
        members.append(f"...{_list_of(items)}")
    return f"[{', '.join(members)}]"


def _list_of(items: Schema) -> str:
    item = _type_of(items)
    is_union = " | " in item and not items.keys().isdisjoint(("anyOf", "oneOf", "enum"))
    return f"({item})[]" if is_union else f"{item}[]"


def _object(schema: Schema) -> str:
    if "properties" in schema:
        required = schema.get("required", [])
        fields = [
            f"{_key(name)}{'' if name in required else '?'}: {_type_of(value)}"
            for name, value in schema["properties"].items()
        ]
        return f"{{ {'; '.join(fields)} }}"
    values = schema.get("additionalProperties", True)
    return f"Record<string, {_type_of(values) if isinstance(values, Mapping) else 'unknown'}>"


def _literal(value: object) -> str:
    """A constant, with the quotes that the dashboard's code has."""
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return json.dumps(value)


def _key(name: str) -> str:
    return name if _NAME.match(name) else _literal(name)
