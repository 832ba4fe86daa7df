"""city data: fetches real data from its publisher's own site."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Fetch real data from its publisher's own site.", no_args_is_help=True)


@app.callback()
def data() -> None:  # without a docstring, because Typer would show it as help
    pass


@app.command()
def tlc(
    month: Annotated[list[str], typer.Argument(help="such as 2015-01")],
    to: Annotated[Path | None, typer.Option(help="the folder; default <CITY_HOME>/data/tlc")] = None,
) -> None:
    """Fetch months of New York yellow-taxi trips. An interrupted download goes on where it stopped."""
    from city.settings import settings
    from simulators import tlc_console

    tlc_console.fetch(month, settings(), to or settings().home / "data" / "tlc")
