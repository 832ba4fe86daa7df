"""city dashboard: builds the web page."""

from typing import Annotated

import typer

_CHECK = typer.Option("--check", help="only check its types and run its unit tests")


def command(check: Annotated[bool, _CHECK] = False) -> None:
    """Build the dashboard, which `city serve` otherwise does when it first starts."""
    from city.web import pages as dashboard

    if check:
        dashboard.check()
    else:
        typer.echo("built" if dashboard.build() else "up to date")
