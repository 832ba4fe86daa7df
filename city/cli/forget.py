"""city forget: a person's or device's data, erased from every tier."""

from typing import Annotated

import typer


def command(
    kind: Annotated[str, typer.Argument(help="vehicle or sensor")],
    identity: Annotated[str, typer.Argument(help="its id")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Find all data of a vehicle or a sensor, and erase it from every tier."""
    from city.lake.forget import LOG, find, forget
    from city.settings import settings

    config = settings()
    found = find(config, kind, identity)
    if not found:
        print(f"nothing is kept of {kind} {identity!r}")
        return
    for name, rows in found.items():
        print(f"{name}: {rows:,} rows")
    if not yes:
        typer.confirm("erase all of it?", abort=True)
    done = forget(config, kind, identity)
    print(f"erased {sum(done.rows.values()):,} rows; recorded in {config.home / LOG}")
    for problem in done.problems:
        print(f"not yet: {problem}")
    if done.problems:
        raise typer.Exit(1)
