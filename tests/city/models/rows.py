"""Rows of traffic's feature view, in which the speed comes back to its cell's mean, as far as it is told by inputs."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from city_assets.traffic.contract import CELL_WINDOW

WINDOW_SECONDS = int(CELL_WINDOW.every.total_seconds())
START = datetime(2026, 5, 4, 12, tzinfo=UTC)
END = START + timedelta(days=3)


def traffic(hours: int = 12, cells: int = 12, seed: int = 0, back: float = 0.25) -> pl.DataFrame:
    """Windows of each cell; `back` is how much of a deviation is gone by the next window."""
    chance = np.random.default_rng(seed)
    steps = hours * 3600 // WINDOW_SECONDS
    mean = np.linspace(8, 26, cells)
    speed = np.empty((steps, cells))
    speed[0] = mean
    for step in range(1, steps):
        speed[step] = speed[step - 1] + back * (mean - speed[step - 1]) + chance.normal(0, 2.5, cells)
    at = [START + timedelta(seconds=WINDOW_SECONDS * step) for step in range(steps)]
    lag = lambda k: np.vstack([np.full((k, cells), np.nan), speed[:-k]])  # noqa: E731
    columns = {f"speed_lag_{k}": lag(k) for k in (1, 2, 3)}
    frame = pl.DataFrame(
        {
            "cell": np.tile([f"c{n}" for n in range(cells)], steps),
            "as_of": [moment for moment in at for _ in range(cells)],
            "speed_mean": speed.ravel(),
            "speed_std": 1.0,
            "speed_recent": np.nanmean([speed, *columns.values()], axis=0).ravel(),
            "speed_neighbours": np.tile(mean, steps) + chance.normal(0, 0.5, steps * cells),
            "speed_slowest_neighbour": np.tile(mean, steps) - 2,
            "speed_fastest_neighbour": np.tile(mean, steps) + 2,
            "neighbours_change": 0.0,
            "neighbours_largest_drop": -1.0,
            "speed_leaders": np.tile(mean, steps),
            "leaders_change": 0.0,
            "speed_city": float(mean.mean()),
            "speed_city_before": float(mean.mean()),
            "speed_past_mean": np.nanmean([speed, *columns.values()], axis=0).ravel(),
            "speed_past_std": 2.0,
            "speed_past_min": np.nanmin([speed, *columns.values()], axis=0).ravel(),
            "speed_past_max": np.nanmax([speed, *columns.values()], axis=0).ravel(),
            "speed_usual": np.tile(mean, steps),
            "speed_usual_later": np.tile(mean, steps),
            "speed_level": np.tile(mean, steps),
            "speed_level_std": 2.5,
            "precipitation": np.zeros(steps * cells),
            "precipitation_before": np.zeros(steps * cells),
            "vehicle_count": 5,
            "positions": 60,
            **{name: values.ravel() for name, values in columns.items()},
        }
    )
    return frame.with_columns(
        pl.col(*columns).fill_nan(None),
        local_hour=pl.col("as_of").dt.hour().cast(pl.Int64),
        weekday=pl.lit(1, pl.Int64),
        holiday=pl.lit(False),
        rush_hour=pl.col("as_of").dt.hour().is_between(16, 18),
    )
