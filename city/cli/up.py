"""city up: starts everything and keeps it running."""

from typing import Annotated

import typer


def command(
    detach: Annotated[bool, typer.Option("--detach", help="return once everything runs, in the background")] = False,
    rate: Annotated[float | None, typer.Option(help="events a second of each simulator")] = None,
    domain: Annotated[list[str] | None, typer.Option("--domain", help="only this domain (may be repeated)")] = None,
    no_simulators: Annotated[bool, typer.Option("--no-simulators", help="real sources only")] = False,
) -> None:
    """Start servers, simulators, the stream and Dagster; Ctrl-C (or `city down`) stops them."""
    from city.contracts.registry import domain_of
    from city.settings import settings
    from city.stack import console

    for name in domain or []:
        domain_of(name)
    config = settings().model_copy(update={"domains": domain} if domain else {})
    if detach:
        console.detach(config, rate, not no_simulators)
    else:
        console.up(config, rate, not no_simulators)
