"""Taxi trips in any number, distributed as real ones are: each is a real trip, moved a little, on another day."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from benchmarks._real import real

_CHUNK = 1_000_000
_METRES_PER_DEGREE = 111_320.0
_SPREAD_METRES = 60.0
_SPREAD_SECONDS = 900
_COORDINATES = ("pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude")


def real_trips() -> pl.DataFrame:
    """The 68,416 real trips with coordinates, dirt included."""
    file = real("tlc/trips_with_coordinates.parquet")
    return pl.read_parquet(file, columns=["pickup_datetime", "dropoff_datetime", *_COORDINATES, "trip_distance_mi"])


def write_month(path: Path, month: datetime, rows: int, trips: pl.DataFrame, seed: int) -> Path:
    """A month of trips in the TLC's layout of 2015. The same seed gives the same file."""
    chance = np.random.default_rng(seed)
    days = ((month + timedelta(days=31)).replace(day=1) - month).days
    writer: pq.ParquetWriter | None = None
    for begin in range(0, rows, _CHUNK):
        part = _moved(
            trips[chance.integers(0, trips.height, min(_CHUNK, rows - begin))], month, days, chance
        ).to_arrow()
        writer = writer or pq.ParquetWriter(path, part.schema, compression="lz4")
        writer.write_table(part)
    if writer:
        writer.close()
    return path


def _moved(picked: pl.DataFrame, month: datetime, days: int, chance: np.random.Generator) -> pl.DataFrame:
    count = picked.height
    pickup, dropoff = pl.col("pickup_datetime"), pl.col("dropoff_datetime")
    stretch = pl.Series("stretch", chance.lognormal(0, 0.1, count))
    late = pl.lit(pl.Series(chance.integers(0, days, count) * 86_400 + chance.integers(0, _SPREAD_SECONDS, count)))
    begin = pl.lit(month) + (pickup - pickup.dt.truncate("1d")) + pl.duration(seconds=late)
    lasted = ((dropoff - pickup).dt.total_seconds() * stretch).round().cast(pl.Int64)
    return picked.select(
        tpep_pickup_datetime=begin,
        tpep_dropoff_datetime=begin + pl.duration(seconds=lasted),
        trip_distance=(pl.col("trip_distance_mi") * stretch).round(2),
        **{
            name: pl.col(name) + pl.Series(chance.normal(0, _SPREAD_METRES / _METRES_PER_DEGREE, count))
            for name in _COORDINATES
        },
    )
