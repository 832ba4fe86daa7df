"""city data: fetches real data from its publisher's own site. Domains declare the subcommands."""

import typer

from city.cli.domain_group import DomainGroup

app = typer.Typer(cls=DomainGroup, help="Fetch real data from its publisher's own site.", no_args_is_help=True)
