"""Downloads months of taxi trips, and the taxi zones, from the TLC, New York's Taxi and Limousine Commission."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import requests

from city.settings import Settings
from city_assets.traffic.trips import ZONES_FILE
from city_assets.traffic.zones import SHAPES, zone_centres

_CHUNK_BYTES = 1 << 20
_ZONES_SECONDS = 60.0


def folder_of(config: Settings) -> Path:
    """Returns the folder to which months are downloaded."""
    return config.home / "data" / "tlc"


def downloaded_zones(config: Settings) -> Path | None:
    """Returns the table of zone centres that was downloaded; None where it was not."""
    path = folder_of(config) / ZONES_FILE
    return path if path.exists() else None


def download_zones(config: Settings, folder: Path) -> Path:
    """Downloads the taxi zones, and writes the table of their centres to `folder`. A table that is there stays.

    Raises requests.RequestException, or ValueError where the server has something else.
    """
    target = folder / ZONES_FILE
    if target.exists():
        return target
    site = config.tlc_url.rstrip("/").rpartition("/")[0]
    response = requests.get(f"{site}/misc/{SHAPES}", timeout=_ZONES_SECONDS)
    response.raise_for_status()
    folder.mkdir(parents=True, exist_ok=True)
    written = target.with_suffix(".new")
    zone_centres(response.content).write_csv(written)
    written.replace(target)
    return target


def month_file(month: str) -> str:
    """Returns the TLC's file name of a month: yellow_tripdata_2015-01.parquet for `2015-01`.

    Raises ValueError for anything but a month since 2009.
    """
    try:
        first = datetime.strptime(month, "%Y-%m")
    except ValueError:
        raise ValueError(f"{month!r} is not a month such as 2015-01") from None
    if first.year < 2009:
        raise ValueError(f"{month}: the TLC's records begin with 2009-01")
    return f"yellow_tripdata_{first:%Y-%m}.parquet"


def download(config: Settings, month: str, folder: Path, progress: Callable[[int, int], None]) -> Path:
    """Downloads a month of trips to `folder`. Resumes a download that an earlier attempt began.

    `progress` is called with the bytes so far and the bytes in all. Returns the path of the file.

    Raises requests.RequestException, or RuntimeError if the server's file changed or ended early.
    """
    name = month_file(month)
    target, partial = folder / name, folder / f"{name}.part"
    if target.exists():
        progress(target.stat().st_size, target.stat().st_size)
        return target
    folder.mkdir(parents=True, exist_ok=True)
    received = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={received}-"} if received else {}
    with requests.get(f"{config.tlc_url}/{name}", headers=headers, stream=True, timeout=30) as response:
        if response.status_code == 416:  # the whole file was here already, or the server's file has become shorter
            partial.unlink()
            raise RuntimeError(f"{name} changed on the server since it was begun: run the command again")
        response.raise_for_status()
        if response.status_code != 206:
            received = 0
        total = received + int(response.headers.get("Content-Length", 0))
        with partial.open("ab" if received else "wb") as file:
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                received += len(chunk)
                progress(received, total)
    if total and received != total:
        raise RuntimeError(
            f"{name} ended after {received:,} of {total:,} bytes: run the command again to go on from there"
        )
    partial.replace(target)
    return target
