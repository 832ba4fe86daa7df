"""The console output of a replay, a download and an ingest of taxi trips."""

import signal
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from city import local_time
from city.settings import Settings
from city.stack.terminal import Terminal, description_column
from city_assets.traffic.download import download, download_zones
from city_assets.traffic.ingest import IngestedFile, ingest
from city_assets.traffic.replay import LoadedTrips, load, replay
from city_assets.traffic.trips import count


def play(paths: Sequence[Path], config: Settings, speed: float, zones: Path | None) -> None:
    """Replays files of trips until they end or a signal stops it, and shows the progress.

    See `replay` for `speed`. Raises ValueError if no trip is left to replay.
    """
    console = Terminal(soft_wrap=True)
    loaded = load(paths, config.timezone, zones)
    for line in describe(loaded):
        console.print(line)
    if loaded.trips.is_empty():
        raise ValueError("no trip is left to replay")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with console.status("starting") as status:

        def show(moment: datetime, sent: int) -> None:
            local = moment.astimezone(local_time.zone(config.timezone))
            text = f"{local:%a %Y-%m-%d %H:%M:%S} at {speed:g}×, {sent:,} positions sent"
            status.update(Text(text if sent else f"{text}: no trip yet at this time of the week, try --speed 10"))

        sent = replay(loaded, config, speed, stop, show)
    console.print(f"{sent:,} positions sent")


def describe(loaded: LoadedTrips) -> list[str]:
    """Returns the lines that say how many trips were read, rejected by reason, and placed at the centre of a zone."""
    lines = [f"{loaded.read:,} trips read, {loaded.trips.height:,} to replay"]
    lines += [f"  {count:,} rejected: {reason}" for reason, count in loaded.rejected.items()]
    if loaded.by_zone:
        lines.append(f"  {loaded.by_zone:,} have zones instead of coordinates and are placed at the zones' centres")
    return lines


def fetch(months: Sequence[str], config: Settings, folder: Path) -> None:
    """Downloads months of trips to `folder`, and the table of zones that they need, and shows the progress."""
    columns = (description_column(), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Terminal()) as progress:
        for month in months:
            task = progress.add_task(month, total=None)

            def update(received: int, total: int, task=task) -> None:  # type: ignore[no-untyped-def]
                progress.update(task, completed=received, total=total or None)

            progress.console.print(str(download(config, month, folder, update)))
    Terminal().print(str(download_zones(config, folder)))  # all current files have zones in place of coordinates


def _describe(file: IngestedFile) -> str:
    if not file.rows:
        return f"{file.file}: is there already"
    return f"{file.file}: replaces {file.replaced:,} trips" if file.replaced else file.file


def ingest_files(paths: Sequence[Path], config: Settings, zones: Path | None) -> None:
    """Appends files of trips to bronze, and shows the progress, the days and the next command.

    Raises UnknownLayout, FileNotFoundError or ForeignTable.
    """
    columns = (description_column(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    files = []
    with Progress(*columns, console=Terminal()) as progress:
        for path in paths:
            task = progress.add_task(path.name, total=count(path))
            file = ingest(path, config.lake, config.timezone, lambda n, t=task: progress.update(t, completed=n), zones)  # type: ignore[misc]
            progress.update(task, description=_describe(file))
            files.append(file)
    rows = sum(file.rows for file in files)
    days = [day for file in files if file.rows for day in (file.first, file.last) if day is not None]
    print(f"{rows:,} trips loaded" + (f", of {min(days)} to {max(days)}" if days else ""))
    if days:
        print(f"now: city build trip_features trip_flows_daily --first {min(days)} --last {max(days)}")
