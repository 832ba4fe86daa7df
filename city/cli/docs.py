"""city docs: writes the generated pages of docs/, and the dashboard's types."""

from pathlib import Path
from typing import Annotated

import typer

_CHECK = typer.Option("--check", help="only check that they are up to date")
_TYPES = Path("dashboard/src/api/generated.ts")


def command(check: Annotated[bool, _CHECK] = False) -> None:
    """Write the generated pages of docs/: contracts, their JSON Schemas and sources; and the dashboard's types."""
    from city.contracts.publish import files, write
    from city.server.app import document
    from city.server.typescript import typescript
    from city.settings import CHECKOUT, settings
    from city.sources.reference import page
    from city.sources.registry import names_by_contract, sources

    types, sources_page = CHECKOUT / _TYPES, CHECKOUT / "docs" / "sources.md"
    known = sources(settings())
    names = names_by_contract(known)
    more = {types: typescript(document()), sources_page: page(known)}
    if check:
        contents = {CHECKOUT / "docs" / name: text for name, text in files(names).items()} | more
        stale = [path for path, text in contents.items() if not path.exists() or path.read_text() != text]
        for path in stale:
            typer.echo(f"{path.relative_to(CHECKOUT)} is out of date: run `make docs`", err=True)
        raise typer.Exit(bool(stale))
    for path, text in more.items():
        path.write_text(text)
    for path in [*write(CHECKOUT / "docs", names), *more]:
        print(path.relative_to(CHECKOUT))
