"""city status: shows the state, rate and lag of every part."""

import json
from typing import Annotated

import typer


def command(as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False) -> None:
    """Show each part's address, state, events a second, lag, p95 latency and last error, and the rows in bronze."""
    from city.settings import settings
    from city.stack.status import status

    report = status(settings())
    if as_json:
        print(json.dumps(report))
    else:
        from city.stack import console

        console.show(report)
