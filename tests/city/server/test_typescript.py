"""The dashboard's types are those of the server's responses."""

from typing import Any

import pytest

from city.server.app import document
from city.server.typescript import UnknownSchema, typescript
from city.settings import CHECKOUT


def lines(schemas: dict[str, Any]) -> list[str]:
    """The lines after the head."""
    return typescript({"components": {"schemas": schemas}}).splitlines()[2:]


def test_the_dashboards_types_are_up_to_date() -> None:
    assert (CHECKOUT / "dashboard/src/api/generated.ts").read_text() == typescript(document()), "run `make docs`"


def test_an_object_is_an_interface_with_its_descriptions() -> None:
    row = {
        "description": "A row.",
        "properties": {
            "id": {"type": "integer", "description": "Its number."},
            "a name": {"type": "string"},
            "kind": {"const": "it's"},
            "other": {"$ref": "#/components/schemas/Other"},
        },
        "required": ["id", "kind"],
        "additionalProperties": True,
    }
    assert lines({"Row": row, "Other": {}}) == [
        "export type Other = unknown;",
        "",
        "/** A row. */",
        "export interface Row {",
        "  /** Its number. */",
        "  id: number;",
        "  'a name'?: string;",
        "  kind: 'it\\'s';",
        "  other?: Other;",
        "  [field: string]: unknown;",
        "}",
    ]


NULLABLE = {"anyOf": [{"type": "integer"}, {"type": "number"}, {"type": "null"}]}
PAIR = [{"type": "string"}, {"type": "integer"}]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (NULLABLE, "number | null"),
        ({"type": "array", "items": NULLABLE}, "(number | null)[]"),
        (
            {"type": "array", "items": {"type": "array", "prefixItems": [*PAIR, NULLABLE]}},
            "[string, number, number | null][]",
        ),
        ({"type": "array", "prefixItems": PAIR, "items": {}}, "[string, number, ...unknown[]]"),
        ({"type": "array"}, "unknown[]"),
        ({"type": ["string", "null"]}, "string | null"),
        ({"enum": ["low", "high"]}, "'low' | 'high'"),
        ({"type": "array", "items": {"enum": ["low", "high"]}}, "('low' | 'high')[]"),
        ({"oneOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "string"}}]}, "boolean | string[]"),
        ({"type": "object"}, "Record<string, unknown>"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "Record<string, number>"),
        ({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}}, "{ a?: string }[]"),
    ],
)
def test_a_schema_has_the_type_of_its_json(schema: dict[str, Any], expected: str) -> None:
    assert lines({"X": schema}) == [f"export type X = {expected};"]


def test_a_long_description_is_wrapped_and_cannot_end_the_comment() -> None:
    first, *middle, last, declaration = lines({"X": {"description": "*/ " + "word " * 60}})
    assert (first, last, declaration) == ("/**", " */", "export type X = unknown;")
    assert all(len(line) <= 120 for line in middle)
    assert " ".join(line.removeprefix(" * ") for line in middle).split() == ["word"] * 60


@pytest.mark.parametrize("schema", [{"type": "file"}, {"allOf": [{"type": "string"}]}, {"not": {"type": "null"}}])
def test_an_unknown_schema_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(UnknownSchema, match=next(iter(schema))):
        lines({"X": schema})
