"""city replay: plays recorded events as if they happened now."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Play recorded events as if they happened now.", no_args_is_help=True)


@app.callback()
def replays() -> None:  # without a docstring, because Typer would show it as help
    pass


@app.command()
def tlc(
    paths: Annotated[list[Path], typer.Argument(help="yellow-taxi files, CSV or Parquet, of any year since 2009")],
    speed: Annotated[float, typer.Option(help="how many times faster than it was", min=0.1)] = 10.0,
    zones: Annotated[Path | None, typer.Option(help="zone centres: LocationID, lon, lat")] = None,
) -> None:
    """Play New York taxi trips as moving vehicles."""
    from city.settings import settings
    from simulators import tlc_console

    tlc_console.play(paths, settings(), speed, zones)
