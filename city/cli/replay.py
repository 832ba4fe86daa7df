"""city replay: plays recorded events as if they happened now. Domains declare the subcommands."""

import typer

from city.cli.domain_group import DomainGroup

app = typer.Typer(cls=DomainGroup, help="Play recorded events as if they happened now.", no_args_is_help=True)
