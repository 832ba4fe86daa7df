"""Pinned reference windows: what "as it was" means, until somebody says otherwise."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

SPAN = timedelta(hours=24)
ROWS = 5_000


@dataclass(frozen=True)
class References:
    """A folder of them, by name."""

    folder: Path

    def get(self, name: str) -> pl.DataFrame | None:
        path = self._path(name)
        return pl.read_parquet(path) if path.exists() else None

    def pinned_at(self, name: str) -> datetime | None:
        path = self._path(name)
        return datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.exists() else None

    def update_reference(self, name: str, rows: pl.DataFrame) -> None:
        """Pins these rows from now on; whoever reads meanwhile sees the old ones or the new."""
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self._path(name).with_suffix(".new")
        rows.write_parquet(beside)
        beside.replace(self._path(name))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"


def whole(rows: pl.DataFrame, time: str, span: timedelta = SPAN) -> bool:
    """Whether rows reach over a whole span, less an hour: what is pinned should know the night and the rush."""
    if not rows.height:
        return False
    reach: timedelta = rows[time].max() - rows[time].min()  # type: ignore[operator,assignment]
    return reach >= span - timedelta(hours=1)


def comparable(reference: pl.DataFrame, current: pl.DataFrame, hour: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both, of the local hours alone that the current window has, and each at most some thousands of rows: a morning
    is held against mornings."""
    same = reference.filter(pl.col(hour).is_in(current[hour].unique().implode()))
    sampled = [frame.sample(min(ROWS, frame.height), seed=0) for frame in (same, current)]
    return sampled[0], sampled[1]
