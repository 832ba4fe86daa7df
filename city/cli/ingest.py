"""city ingest: loads months of recorded data straight into bronze. Domains declare the subcommands."""

import typer

from city.cli.domain_group import DomainGroup

app = typer.Typer(cls=DomainGroup, help="Load recorded data straight into bronze.", no_args_is_help=True)
