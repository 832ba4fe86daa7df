"""Whether two versions of a contract understand each other, by their published JSON Schemas.

Backward: the new version reads what was written by the old one. Forward: the old one reads what the new one writes.
A message is read when the reader's schema accepts it; ours accept no field that they do not list.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from city.contracts.json_schema import json_schema
from city.contracts.model import Compatibility, Contract

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Break:
    """A change for which `reader` rejects some of what `writer` writes."""

    reader: str
    writer: str
    change: str

    def __str__(self) -> str:
        return f"{self.reader} cannot read what {self.writer} writes: {self.change}"


def against_released(contract: Contract, released: Path) -> list[Break]:
    """What breaks between a contract and the last of its released schemas (`<name>.v<version>.json`), as far as the
    contract promises otherwise. A released version may not change at all in what it accepts."""
    found = last_released(contract, released)
    if found is None:
        return []
    version, schema = found
    return breaks(schema, json_schema(contract), version, contract, "full" if version == contract.version else None)


def breaks(
    old: Schema, new: Schema, version: int, contract: Contract, promised: Compatibility | None = None
) -> list[Break]:
    promised = promised or contract.compatibility
    names = f"{contract.name} v{version}", f"{contract.name} v{contract.version}"
    found: list[Break] = []
    if promised in ("backward", "full"):
        found += [Break(names[1], names[0], change) for change in rejected(old, new)]
    if promised in ("forward", "full"):
        found += [Break(names[0], names[1], change) for change in rejected(new, old)]
    return found


def last_released(contract: Contract, released: Path) -> tuple[int, Schema] | None:
    """The highest released version up to the contract's own, with its schema."""
    versions = {
        int(path.stem.rpartition(".v")[2]): path
        for path in released.glob(f"{contract.name}.v*.json")
        if path.stem.rpartition(".v")[2].isdigit()
    }
    known = [version for version in versions if version <= contract.version]
    return (max(known), json.loads(versions[max(known)].read_text())) if known else None


def rejected(writer: Schema, reader: Schema) -> Iterator[str]:
    """Why the reader rejects some of what the writer's schema allows; nothing where it accepts all."""
    written, read = writer["properties"], reader["properties"]
    for name in written.keys() - read.keys():
        yield f"field {name!r} is not known to it"
    for name in set(reader["required"]) - set(writer["required"]):
        yield f"field {name!r} may be missing" if name in written else f"field {name!r} is missing"
    for name in sorted(written.keys() & read.keys()):
        yield from (f"field {name!r}: {reason}" for reason in _narrower(written[name], read[name]))
    yield from _quantities(writer, reader)


def _narrower(written: Schema, read: Schema) -> Iterator[str]:
    types = _types(written) - _types(read)
    if not types and "object" in _types(read):
        yield from rejected(written, read)
        return
    if types:
        yield f"may be {' or '.join(sorted(types))}, where {' or '.join(sorted(_types(read)))} is read"
    if "enum" in read:
        more = [value for value in written.get("enum", ["anything else"]) if value not in read["enum"]]
        if more:
            yield f"may be {', '.join(map(str, more))}"
    if "pattern" in read and written.get("pattern") != read["pattern"] and "enum" not in written:
        yield f"need not match {read['pattern']}"
    if written.get("format") != read.get("format") and "format" in read:
        yield f"need not be a {read['format']}"
    yield from _wider(written, read)


def _wider(written: Schema, read: Schema) -> Iterator[str]:
    low, high = read.get("minimum"), read.get("maximum")
    if low is not None and written.get("minimum", float("-inf")) < low:
        yield f"may be below {low:g}"
    if high is not None and written.get("maximum", float("inf")) > high:
        yield f"may be above {high:g}"


def _types(schema: Schema) -> set[str]:
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return {*kinds, *(["integer"] if "number" in kinds else [])}


def _quantities(writer: Schema, reader: Schema) -> Iterator[str]:
    """The units and ranges that depend on another field."""
    written = dict(map(_condition, writer.get("allOf", ())))
    for by, then in map(_condition, reader.get("allOf", ())):
        for name, wanted in then.items():
            held = written.get(by, {}).get(name, {})
            if "const" in wanted and held.get("const", wanted["const"]) != wanted["const"]:
                yield f"field {name!r} of {by[1]} is {held['const']}, where {wanted['const']} is read"
            yield from (f"field {name!r} of {by[1]}: {reason}" for reason in _wider(held, wanted) if by in written)


def _condition(entry: Schema) -> tuple[tuple[str, str], Schema]:
    ((field, value),) = entry["if"]["properties"].items()
    return (field, value["const"]), entry["then"]["properties"]
