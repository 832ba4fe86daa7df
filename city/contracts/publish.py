"""The files that are generated from contracts: the reference page and a JSON Schema each."""

import json
from pathlib import Path

from city.contracts.json_schema import json_schema
from city.contracts.reference import page
from city.contracts.registry import domains


def files() -> dict[str, str]:
    """Relative path to content."""
    found = domains()
    schemas = {f"schemas/{c.name}.v{c.version}.json": json_schema(c) for d in found for c in d.contracts}
    return {"contracts.md": page(found)} | {
        name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in schemas.items()
    }


def write(folder: Path) -> list[Path]:
    paths = []
    for name, content in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        paths.append(path)
    return paths
