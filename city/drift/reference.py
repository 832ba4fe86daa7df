"""Stores pinned reference windows. A reference stays as it is until somebody pins another."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

SPAN = timedelta(hours=24)
ROWS = 5_000


@dataclass(frozen=True)
class References:
    """The reference windows in a folder, a Parquet file for each name."""

    folder: Path

    def get(self, name: str) -> pl.DataFrame | None:
        """Reads the reference of that name. Returns None where none is pinned."""
        path = self._path(name)
        return pl.read_parquet(path) if path.exists() else None

    def pinned_at(self, name: str) -> datetime | None:
        """Returns the time at which the reference was pinned. Returns None where none is pinned."""
        path = self._path(name)
        return datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.exists() else None

    def update_reference(self, name: str, rows: pl.DataFrame) -> None:
        """Pins these rows from now on. A concurrent reader gets either the old rows or the new rows."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self._path(name).with_suffix(".new")
        rows.write_parquet(temporary)
        temporary.replace(self._path(name))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"


def covers_span(rows: pl.DataFrame, time: str, span: timedelta = SPAN) -> bool:
    """Whether rows cover a whole span, less an hour.

    A pinned reference should contain both the night and the rush hours.
    """
    if not rows.height:
        return False
    covered: timedelta = rows[time].max() - rows[time].min()  # type: ignore[operator,assignment]
    return covered >= span - timedelta(hours=1)


def comparable(reference: pl.DataFrame, current: pl.DataFrame, hour: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Samples both windows so that they can be compared.

    The reference is limited to the local hours of the current window, so that a morning is compared with mornings. Each
    sample has at most `ROWS` rows.
    """
    same_hours = reference.filter(pl.col(hour).is_in(current[hour].unique().implode()))
    sampled = [frame.sample(min(ROWS, frame.height), seed=0) for frame in (same_hours, current)]
    return sampled[0], sampled[1]
