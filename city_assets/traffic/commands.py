"""The commands of New York's taxi trips: `city data tlc`, `city ingest tlc` and `city replay tlc`."""

from pathlib import Path
from typing import Annotated

import typer


def fetch_months(
    month: Annotated[list[str], typer.Argument(help="such as 2015-01")],
    to: Annotated[Path | None, typer.Option(help="the folder; default <CITY_HOME>/data/tlc")] = None,
) -> None:
    """Fetch months of New York yellow-taxi trips. An interrupted download goes on where it stopped."""
    from city.settings import settings
    from city_assets.traffic import console

    console.fetch(month, settings(), to or settings().home / "data" / "tlc")


def ingest_trips(
    paths: Annotated[list[Path], typer.Argument(help="CSV or Parquet files of yellow-taxi trips, of any year")],
    zones: Annotated[Path | None, typer.Option(help="table of zone centres (LocationID, lon, lat)")] = None,
) -> None:
    """Load taxi trips into bronze/trips. A file that is there already is skipped, one that broke off is done again."""
    from city.settings import settings
    from city_assets.traffic import console

    console.ingest_files(paths, settings(), zones)


def replay_trips(
    paths: Annotated[list[Path], typer.Argument(help="yellow-taxi files, CSV or Parquet, of any year since 2009")],
    speed: Annotated[float, typer.Option(help="how many times faster than it was", min=0.1)] = 10.0,
    zones: Annotated[Path | None, typer.Option(help="zone centres: LocationID, lon, lat")] = None,
) -> None:
    """Play New York taxi trips as moving vehicles."""
    from city.settings import settings
    from city_assets.traffic import console

    console.play(paths, settings(), speed, zones)


COMMANDS = {"data": {"tlc": fetch_months}, "ingest": {"tlc": ingest_trips}, "replay": {"tlc": replay_trips}}
