"""city keys: makes, lists and revokes keys of the API."""

from datetime import UTC, datetime
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="API keys: make, list, revoke.")
_LAST_SECONDS = 253_370_764_800.0  # the year 9999
Name = Annotated[str, typer.Argument(help="whose key it is")]


@app.command()
def add(
    name: Name,
    role: Annotated[str, typer.Option(help="viewer, client, operator or admin")] = "client",
    rate: Annotated[float, typer.Option(help="requests a second; 0: no limit")] = 0.0,
    days: Annotated[float | None, typer.Option(help="the days that it is valid; default: until it is revoked")] = None,
) -> None:
    """Create a key. It is shown once and is not stored."""
    from city.settings import settings
    from city.web.keys import Keys

    typer.echo(Keys(settings()).add(name, role, rate, days))


@app.command("list")
def listed() -> None:
    """List the names, roles and limits of keys, but not the keys."""
    from rich.table import Table

    from city.settings import settings
    from city.stack.terminal import Terminal
    from city.web.keys import Keys

    table = Table("name", "role", "requests/s", "expires")
    for caller in Keys(settings()).all():
        rate = f"{caller.rate:g}" if caller.rate else "no limit"
        table.add_row(caller.name, caller.role, rate, _until(caller.expires))
    Terminal().print(table)


@app.command()
def revoke(name: Name) -> None:
    """Revoke a key. Within a second it is refused."""
    from city.settings import settings
    from city.web.keys import Keys

    Keys(settings()).revoke(name)
    typer.echo(f"the key {name} is revoked")


def _until(expires: float | None) -> str:
    """Formats the expiry of a key. A key of an earlier release may be valid for nan days, or beyond the last year that
    a datetime can have."""
    if not expires or not expires < _LAST_SECONDS:
        return "never"
    return datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%d %H:%M UTC")
