"""Checks whether two versions of a contract are compatible, by their published JSON Schemas.

Backward: the new version reads what the old version writes. Forward: the old version reads what the new version
writes. A reader reads a message when the reader's schema accepts it. City's schemas accept no field that they do not
list.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from city.contracts.json_schema import JsonSchema, json_schema
from city.contracts.model import Compatibility, Contract


@dataclass(frozen=True)
class Incompatibility:
    """A change for which `reader` rejects some of what `writer` writes."""

    reader: str
    writer: str
    change: str

    def __str__(self) -> str:
        return f"{self.reader} cannot read what {self.writer} writes: {self.change}"


def against_released(contract: Contract, released: Path) -> list[Incompatibility]:
    """Compares a contract with the last of its released schemas (`<name>.v<version>.json` in the folder `released`).

    Returns the breaks of the compatibility that the contract promises; none where no schema is released. A released
    version must not change at all in what it accepts, so a contract of the same version is compared in both
    directions.
    """
    last = last_released(contract, released)
    if last is None:
        return []
    version, schema = last
    return breaks(schema, json_schema(contract), version, contract, "full" if version == contract.version else None)


def breaks(
    old: JsonSchema, new: JsonSchema, version: int, contract: Contract, promised: Compatibility | None = None
) -> list[Incompatibility]:
    """Lists the changes between two schemas that break the promised compatibility.

    `old` is the schema of the contract's version `version`, `new` that of the contract itself. `promised` is the
    contract's own compatibility unless it is given.
    """
    promised = promised or contract.compatibility
    labels = f"{contract.name} v{version}", f"{contract.name} v{contract.version}"
    broken: list[Incompatibility] = []
    if promised in ("backward", "full"):
        broken += [Incompatibility(labels[1], labels[0], change) for change in rejection_reasons(old, new)]
    if promised in ("forward", "full"):
        broken += [Incompatibility(labels[0], labels[1], change) for change in rejection_reasons(new, old)]
    return broken


def last_released(contract: Contract, released: Path) -> tuple[int, JsonSchema] | None:
    """Returns the highest released version up to the contract's own, with its schema; None where there is none."""
    versions = {
        int(path.stem.rpartition(".v")[2]): path
        for path in released.glob(f"{contract.name}.v*.json")
        if path.stem.rpartition(".v")[2].isdigit()
    }
    numbers = [version for version in versions if version <= contract.version]
    return (max(numbers), json.loads(versions[max(numbers)].read_text())) if numbers else None


def rejection_reasons(writer: JsonSchema, reader: JsonSchema) -> Iterator[str]:
    """Yields each reason why the reader rejects some of what the writer's schema allows; nothing if it accepts all."""
    written, read = writer["properties"], reader["properties"]
    for name in written.keys() - read.keys():
        yield f"field {name!r} is not known to it"
    for name in set(reader["required"]) - set(writer["required"]):
        yield f"field {name!r} may be missing" if name in written else f"field {name!r} is missing"
    for name in sorted(written.keys() & read.keys()):
        yield from (f"field {name!r}: {reason}" for reason in _field_conflicts(written[name], read[name]))
    yield from _quantity_conflicts(writer, reader)


def _field_conflicts(written: JsonSchema, read: JsonSchema) -> Iterator[str]:
    """Yields each reason why the field schema `read` rejects some of what the field schema `written` allows."""
    types = _accepted_types(written) - _accepted_types(read)
    if not types and "object" in _accepted_types(read):
        yield from rejection_reasons(written, read)
        return
    if types:
        yield f"may be {' or '.join(sorted(types))}, where {' or '.join(sorted(_accepted_types(read)))} is read"
    if "enum" in read:
        more = [value for value in written.get("enum", ["anything else"]) if value not in read["enum"]]
        if more:
            yield f"may be {', '.join(map(str, more))}"
    if "pattern" in read and written.get("pattern") != read["pattern"] and "enum" not in written:
        yield f"need not match {read['pattern']}"
    if written.get("format") != read.get("format") and "format" in read:
        yield f"need not be a {read['format']}"
    yield from _range_conflicts(written, read)


def _range_conflicts(written: JsonSchema, read: JsonSchema) -> Iterator[str]:
    """Yields the ends at which the range of `written` reaches beyond the range of `read`."""
    low, high = read.get("minimum"), read.get("maximum")
    if low is not None and written.get("minimum", float("-inf")) < low:
        yield f"may be below {low:g}"
    if high is not None and written.get("maximum", float("inf")) > high:
        yield f"may be above {high:g}"


def _accepted_types(schema: JsonSchema) -> set[str]:
    """Returns the JSON types that a field schema accepts. A number may be an integer."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return {*kinds, *(["integer"] if "number" in kinds else [])}


def _quantity_conflicts(writer: JsonSchema, reader: JsonSchema) -> Iterator[str]:
    """Yields the conflicts of the units and ranges that depend on another field."""
    written = dict(map(_parse_condition, writer.get("allOf", ())))
    for by, then in map(_parse_condition, reader.get("allOf", ())):
        for name, read in then.items():
            schema = written.get(by, {}).get(name, {})
            if "const" in read and schema.get("const", read["const"]) != read["const"]:
                yield f"field {name!r} of {by[1]} is {schema['const']}, where {read['const']} is read"
            yield from (
                f"field {name!r} of {by[1]}: {reason}" for reason in _range_conflicts(schema, read) if by in written
            )


def _parse_condition(entry: JsonSchema) -> tuple[tuple[str, str], JsonSchema]:
    """Splits an entry of `allOf` into its condition (field, value) and the properties that follow from it."""
    ((field, value),) = entry["if"]["properties"].items()
    return (field, value["const"]), entry["then"]["properties"]
