"""Writes the files that are generated from contracts: the reference page, and a JSON Schema for each contract."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from city.contracts.compatibility import against_released
from city.contracts.json_schema import json_schema
from city.contracts.model import Contract, ContractError
from city.contracts.reference import page
from city.contracts.registry import contracts, domains

SourceNames = Mapping[str, Sequence[str]]
"""The names of the sources that become events of a contract, by its name."""


def files(sources: SourceNames = MappingProxyType({})) -> dict[str, str]:
    """Returns the content of each generated file, by relative path."""
    all_domains = domains()
    schemas = {f"schemas/{c.name}.v{c.version}.json": json_schema(c) for d in all_domains for c in d.contracts}
    return {"contracts.md": page(all_domains, sources)} | {
        name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in schemas.items()
    }


def write_schema(contract: Contract, folder: Path) -> Path:
    """Writes a contract's schema into a folder and returns its path.

    Raises ContractError where that version is released and accepts something else.
    """
    path = folder / f"{contract.name}.v{contract.version}.json"
    if path.exists() and (broken := against_released(contract, folder)):
        changes = "; ".join(item.change for item in broken)
        raise ContractError(
            f"{contract.name} v{contract.version} is released, and this changes it ({changes}): "
            f"declare version={contract.version + 1}, or restore {path.name}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(json_schema(contract), indent=2, ensure_ascii=False) + "\n")
    return path


def write(folder: Path, sources: SourceNames = MappingProxyType({})) -> list[Path]:
    """Writes all generated files into a folder and returns their paths. Raises ContractError as `write_schema` does."""
    paths = []
    for contract in contracts():
        write_schema(contract, folder / "schemas")
    for name, content in files(sources).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        paths.append(path)
    return paths
