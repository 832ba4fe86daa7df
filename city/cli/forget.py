"""city forget: erases the data of a person or a device from every tier."""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand


class Command(TyperCommand):
    """Lists the kinds of identities in the help. They follow from the contracts, which other commands do not read."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help with the list of kinds."""
        from city.privacy.erase import kinds

        (kind,) = (parameter for parameter in self.params if parameter.name == "kind")
        kind.help = ", ".join(sorted(kinds()))  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


def command(
    kind: Annotated[str, typer.Argument()],
    identity: Annotated[str, typer.Argument(help="its id")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Find all data of a person or a device, and erase it from every tier."""
    from city.privacy.erase import LOG, find, forget
    from city.settings import settings

    config = settings()
    unread: list[str] = []
    counts = find(config, kind, identity, unread.append)
    if not counts and not unread:
        print(f"there is no data about {kind} {identity!r}")
        return
    for name, rows in counts.items():
        print(f"{name}: {rows:,} rows")
    for problem in unread:
        print(f"not searched: {problem}")
    if not yes:
        typer.confirm("erase all of it?", abort=True)
    report = forget(config, kind, identity)
    print(f"erased {sum(report.rows.values()):,} rows; recorded in {config.home / LOG}")
    for problem in report.problems:
        print(f"not yet: {problem}")
    if report.problems:
        raise typer.Exit(1)
