"""The commands of New York's taxi trips: `city data|ingest|replay|history tlc`."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer


def fetch_months(
    month: Annotated[list[str], typer.Argument(help="such as 2015-01")],
    to: Annotated[Path | None, typer.Option(help="the folder; default <CITY_HOME>/data/tlc")] = None,
) -> None:
    """Fetch months of New York yellow-taxi trips, and the table of zones. An interrupted download is continued."""
    from city.settings import settings
    from city_assets.traffic import console
    from city_assets.traffic.download import folder_of

    console.fetch(month, settings(), to or folder_of(settings()))


def ingest_trips(
    paths: Annotated[list[Path], typer.Argument(help="CSV or Parquet files of yellow-taxi trips, of any year")],
    zones: Annotated[Path | None, typer.Option(help="table of zone centres (LocationID, lon, lat)")] = None,
) -> None:
    """Load taxi trips into bronze/trips. A file that is there already is skipped, one that broke off is done again."""
    from city.settings import settings
    from city_assets.traffic import console
    from city_assets.traffic.download import downloaded_zones

    console.ingest_files(paths, settings(), zones or downloaded_zones(settings()))


def replay_trips(
    paths: Annotated[list[Path], typer.Argument(help="yellow-taxi files, CSV or Parquet, of any year since 2009")],
    speed: Annotated[float, typer.Option(help="1: at the trips' own hour and weekday; else at once", min=0.1)] = 1.0,
    zones: Annotated[Path | None, typer.Option(help="zone centres: LocationID, lon, lat")] = None,
) -> None:
    """Play New York taxi trips as moving vehicles.

    A trip of a Monday at 08:15 is played on a Monday at 08:15. With another speed than 1 the first trip begins at once,
    and the trips run that many times as fast.
    """
    from city.settings import settings
    from city_assets.traffic import console
    from city_assets.traffic.download import downloaded_zones

    console.play(paths, settings(), speed, zones or downloaded_zones(settings()))


def make_history(
    paths: Annotated[list[Path], typer.Argument(help="yellow-taxi files, CSV or Parquet, of any year since 2009")],
    every: Annotated[float, typer.Option(help="seconds between two positions of a vehicle", min=1)] = 60,
    first: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="the first day to take")] = None,
    last: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="the last day to take")] = None,
    zones: Annotated[Path | None, typer.Option(help="zone centres: LocationID, lon, lat")] = None,
) -> None:
    """Make history of New York taxi trips: positions in bronze, then the tables and features of their days.

    A day that is in bronze from an earlier import stays as it is.
    """
    from city.settings import settings
    from city_assets.traffic import history_console
    from city_assets.traffic.download import downloaded_zones

    config, days = settings(), (first and first.date(), last and last.date())
    history_console.make_history(paths, config, timedelta(seconds=every), days, zones or downloaded_zones(config))


COMMANDS = {
    "data": {"tlc": fetch_months},
    "ingest": {"tlc": ingest_trips},
    "replay": {"tlc": replay_trips},
    "history": {"tlc": make_history},
}
