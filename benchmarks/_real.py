"""Real data that is not ours to ship: found in CITY_DATA_DIR, or named as missing."""

from pathlib import Path

from city.settings import settings


def real(name: str) -> Path:
    """A file or folder of the real data. Raises FileNotFoundError that names it and the setting."""
    path = settings().data / name
    if not path.exists():
        raise FileNotFoundError(f"the real data {name} is not at {path}: set CITY_DATA_DIR")
    return path
