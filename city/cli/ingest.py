"""city ingest: loads months of recorded data straight into bronze."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Load recorded data straight into bronze.", no_args_is_help=True)


@app.callback()
def ingest() -> None:
    """Load recorded data straight into bronze."""


@app.command()
def tlc(
    paths: Annotated[list[Path], typer.Argument(help="CSV or Parquet files of yellow-taxi trips, of any year")],
    zones: Annotated[Path | None, typer.Option(help="table of zone centres (LocationID, lon, lat)")] = None,
) -> None:
    """Load taxi trips into bronze/trips. A file that is there already is skipped, one that broke off is done again."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    from city.settings import settings
    from city.stack.terminal import Terminal, description_column
    from city_assets.traffic.ingest import ingest
    from city_assets.traffic.trips import count

    config = settings()
    columns = (description_column(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    loads = []
    with Progress(*columns, console=Terminal()) as progress:
        for path in paths:
            task = progress.add_task(path.name, total=count(path))
            load = ingest(path, config.lake, config.timezone, lambda n, t=task: progress.update(t, completed=n), zones)  # type: ignore[misc]
            progress.update(task, description=path.name if load.rows else f"{path.name}: is there already")
            loads.append(load)
    rows = sum(load.rows for load in loads)
    days = [day for load in loads if load.rows for day in (load.first, load.last)]
    print(f"{rows:,} trips loaded" + (f", of {min(days)} to {max(days)}" if days else ""))  # type: ignore[type-var]
    if days:
        print(f"now: city build trip_flows_daily --first {min(days)} --last {max(days)}")  # type: ignore[type-var]
