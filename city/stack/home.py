"""Checks the state folder (CITY_HOME) before a city starts in it, so that nothing is half written."""

import shutil
import tempfile
from pathlib import Path

from city.settings import Settings
from city.stack.history_plan import FOLDER, load_plan
from city.stack.part import CannotStart

_LEAST_BYTES, _HISTORY_DAY_BYTES = 1_000_000_000, 300_000_000
"""The space that a new city needs within its first hours, and more for each day of history."""
_FOLDERS = frozenset(
    {"alerts", "bridge", "cache", "cold", "dagster", "data", "drift", "features", FOLDER, "kafka", "lake", "logs"}
    | {"mlflow", "models", "mosquitto", "mqtt", "quality", "questdb", "run", "serving", "spark"}
)
"""Folders that City makes in its home, some of them before the first start."""
_NAMED = 3  # so many folders are named in an error


def check_home(config: Settings) -> None:
    """Checks that CITY_HOME has no other folders, can be written to, and has space. Raises CannotStart."""
    home = config.home
    try:
        check_folders(home)
        config.run.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=config.run) as file:
            file.write(bytes(4096))
        free = shutil.disk_usage(home).free
    except OSError as error:
        raise CannotStart(
            f"CITY_HOME={home} cannot be written to: {error.strerror or error}. Free space, or give this user write "
            "access, or point CITY_HOME at another folder"
        ) from error
    plan = load_plan(config)
    if plan is not None and plan.timezone != config.timezone and (config.lake / "bronze").exists():
        raise CannotStart(
            f"CITY_TIMEZONE is {config.timezone}, and the tables in CITY_HOME={home} have the local days of "
            f"{plan.timezone}: set it back, or point CITY_HOME at a new folder"
        )
    needed = _LEAST_BYTES + _HISTORY_DAY_BYTES * config.history_days
    if free < needed and not (config.lake / "bronze").exists():
        history = f" with {config.history_days} days of history" if config.history_days else ""
        advice = ", or set CITY_HISTORY_DAYS to fewer days" if config.history_days else ""
        raise CannotStart(
            f"the disk of CITY_HOME={home} has {free / 1e6:,.0f} MB left, and a new city{history} needs "
            f"{needed / 1e6:,.0f} MB: free some, or point CITY_HOME at another disk{advice}"
        )


def check_folders(home: Path) -> None:
    """Refuses a folder that has other folders and no lake. Files may be there, such as a log of `city up`.

    Raises CannotStart.
    """
    if not home.exists() or (home / "lake").is_dir():
        return
    found = {path.name for path in home.iterdir() if path.is_dir() and not path.name.startswith(".")}
    names = sorted(found - _FOLDERS - {"lost+found"})
    if names:
        some = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
        raise CannotStart(
            f"CITY_HOME={home} has folders of something else ({some}) and no city: point CITY_HOME at an empty or a "
            "new folder"
        )
