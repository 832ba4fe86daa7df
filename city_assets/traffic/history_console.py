"""The console output of a history that is made of taxi trips."""

import shutil
import tempfile
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from city import local_time
from city.settings import Settings
from city.stack.history_plan import FOLDER
from city.stack.terminal import Terminal, description_column
from city_assets.recorded_history import Recording, append, build, check_days, lock, name_days, table_builds
from city_assets.traffic.contract import VEHICLE_POSITIONS
from city_assets.traffic.tracks import Period, TripDays
from city_assets.traffic.trips import count, scan_trips

SOURCE = "tlc"
"""The name of the source in bronze's log."""
_TRIPS = "trips-"


def make_history(
    paths: Sequence[Path],
    config: Settings,
    every: timedelta,
    days: tuple[date | None, date | None],
    zones: Path | None,
) -> None:
    """Appends the positions of the trips to bronze, builds the tables of their days, and shows the progress.

    `days` are the first and the last local day to take, None without a bound. A file that is named twice is read once.

    Raises UnknownLayout, UnreadableFile or FileNotFoundError for a file, and ValueError where no trip is left or where
    bronze has events of another source on these days. Nothing is appended then.
    """
    console = Terminal(soft_wrap=True)
    period = Period(datetime.now(local_time.zone(config.timezone)).replace(tzinfo=None), *days)
    files = {path.resolve(): path for path in paths}.values()
    for path in files:  # all of them before the first is read, which may take minutes
        scan_trips(path, zones)
    with lock(config), _open_folder(config) as folder:
        trips = TripDays(Path(folder), config.timezone)
        columns = (description_column(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            for path in files:
                task = progress.add_task(path.name, total=count(path))
                trips.add(path, period, zones, lambda n, t=task: progress.update(t, completed=n))  # type: ignore[misc]
        for line in describe(trips):
            console.print(line)
        if not trips.kept:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in trips.rejected.items())
            raise ValueError(f"no trip is left to make history of: {trips.read:,} trips read, rejected {reasons or 0}")
        recording = Recording(SOURCE, VEHICLE_POSITIONS, trips.days(), lambda day: trips.positions(day, every))
        check_days(config, recording)
        with Progress(*columns, console=console) as progress:
            lines = _make(config, recording, progress)
        for line in [*lines, *_describe_rest(trips)]:
            console.print(line)


def _open_folder(config: Settings) -> tempfile.TemporaryDirectory[str]:
    """Creates a folder for the trips of this import, and removes that of an import that was killed."""
    for left in (config.home / FOLDER).glob(f"{_TRIPS}*"):
        shutil.rmtree(left)
    return tempfile.TemporaryDirectory(prefix=_TRIPS, dir=config.home / FOLDER)


def _make(config: Settings, recording: Recording, progress: Progress) -> list[str]:
    """Appends the days and builds the tables. Returns the lines that say what was done."""
    appended, rows, rejected = [], 0, 0
    task = progress.add_task("days of bronze", total=len(recording.days))
    for day, result in append(config, recording):
        progress.update(task, advance=1, description=f"bronze {day}")
        if result is not None:
            appended.append(day)
            rows, rejected = rows + result.rows, rejected + result.rejected
    builds = table_builds(config, recording, appended)
    task = progress.add_task("tables", total=len(builds))
    for built in build(config, builds):
        progress.update(task, advance=1, description=built.table.id)
    lines = [f"{rows:,} positions of {_count_days(len(appended))} appended to bronze/{recording.contract.name}"]
    if rejected:
        lines.append(f"  {rejected:,} rejected by the contract: city table quarantine/{recording.contract.name}")
    if present := sorted(set(recording.days) - set(appended)):
        lines.append(f"  in bronze from an earlier import already, and left as it is: {name_days(present)}")
    tables = len({built.table.id for built in builds})
    lines.append(f"{tables} tables built" if tables else "all tables have these days already")
    return lines


def describe(trips: TripDays) -> list[str]:
    """Returns the lines that say how many trips were read, rejected by reason, and placed at the centre of a zone."""
    lines = [f"{trips.read:,} trips read, {trips.kept:,} to make history of"]
    lines += [
        f"  {count:,} rejected: {reason}" for reason, count in sorted(trips.rejected.items(), key=lambda r: -r[1])
    ]
    if trips.by_zone:
        lines.append(f"  {trips.by_zone:,} have zones instead of coordinates and are placed at the zones' centres")
    if trips.kept:
        days = trips.days()
        lines.append(f"{_count_days(len(days))}, from {days[0]} to {days[-1]}")
    return lines


def _describe_rest(trips: TripDays) -> list[str]:
    lines = [f"  {trips.repeated:,} trips were there twice and count once"] if trips.repeated else []
    if trips.cut:
        lines.append(
            f"  {trips.cut:,} positions left out: after midnight, on a day on which no trip of the files begins"
        )
    return lines


def _count_days(count: int) -> str:
    return f"{count:,} day" if count == 1 else f"{count:,} days"
