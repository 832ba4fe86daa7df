"""Reads and cleans New York yellow-taxi trips, in any layout that the TLC has published since 2009.

The functions are pure, except for reading the files.

A trip has `pickup_at` and `dropoff_at` (local New York time as published; `to_utc` converts them), the coordinates of
both ends in degrees, `distance_km`, and `by_zone`. The last is true if the file has zones, and the ends are the centres
of the zones.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar

import narwhals as nw
import polars as pl

from city_assets.traffic.transforms import impossible

# All spellings of a column in the files since 2009, stripped and in lower case.
_SPELLINGS = {
    "pickup_at": ("pickup_datetime", "tpep_pickup_datetime", "trip_pickup_datetime", "lpep_pickup_datetime"),
    "dropoff_at": ("dropoff_datetime", "tpep_dropoff_datetime", "trip_dropoff_datetime", "lpep_dropoff_datetime"),
    "pickup_latitude": ("pickup_latitude", "start_lat"),
    "pickup_longitude": ("pickup_longitude", "start_lon"),
    "dropoff_latitude": ("dropoff_latitude", "end_lat"),
    "dropoff_longitude": ("dropoff_longitude", "end_lon"),
    "pickup_zone": ("pulocationid",),
    "dropoff_zone": ("dolocationid",),
    "distance_miles": ("trip_distance", "trip_distance_mi"),
}
_ENDS = ("pickup_latitude", "pickup_longitude", "dropoff_latitude", "dropoff_longitude")
_REQUIRED = ("pickup_at", "dropoff_at", "distance_miles")
_KM_PER_MILE = 1.609344
_MONTH_FILE = re.compile(r"((?:[a-z]+_)?tripdata_\d{4}-\d{2})\.(csv|parquet)(\.gz|\.zst)?")
ZONES_FILE = "taxi_zone_centers.csv"
_TIMES = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M")
"""The forms of times: of the TLC's own files, and of exports from NYC Open Data and from spreadsheets."""
_CHECKED_TIMES = 1_000
_READINGS: tuple[Literal["earliest", "latest"], ...] = ("earliest", "latest")
"""The readings of a local time that the clocks repeat, in order."""

Trips = TypeVar("Trips", pl.DataFrame, pl.LazyFrame)


class UnreadableFile(ValueError):
    """A file is neither a CSV nor a Parquet file, or is damaged. The message names the file and the reason."""


class UnknownLayout(ValueError):
    """A file has no trips in a known layout. The message names the file and the columns that it lacks."""


def scan_trips(path: Path, zones: Path | None = None) -> pl.LazyFrame:
    """Scans a CSV or Parquet file of trips, typed and uncleaned. A value that cannot be read is null.

    `zones` is a table of zone centres (LocationID, lon, lat). By default it is the file ZONES_FILE beside `path`.

    Raises UnknownLayout, UnreadableFile, FileNotFoundError.
    """
    if not path.exists():
        raise FileNotFoundError(f"no file {path}: fetch a month with `city data tlc 2015-01`")
    if path.is_dir():
        raise UnreadableFile(f"{path} is a folder: name the files in it")
    with explain_unreadable(path):
        frame = _scan(path)
        names = {name.strip().lower(): name for name in frame.collect_schema().names()}
    columns = {
        column: names[spelling]
        for column, spellings in _SPELLINGS.items()
        for spelling in spellings
        if spelling in names
    }
    with_zones = "pickup_zone" in columns and "dropoff_zone" in columns
    missing = [column for column in (*_REQUIRED, *(() if with_zones else _ENDS)) if column not in columns]
    if missing:
        raise UnknownLayout(f"{path} is not a file of yellow-taxi trips: it has no column for {', '.join(missing)}")
    frame = frame.select(pl.col(name).alias(column) for column, name in columns.items())
    for name in ("pickup_at", "dropoff_at"):
        _check_times(path, columns[name], frame, name)
    typed = frame.with_columns(
        _parse_time("pickup_at", frame),
        _parse_time("dropoff_at", frame),
        pl.col("distance_miles").cast(pl.Float64, strict=False),
    )
    typed = _join_zone_centres(typed, zones or path.with_name(ZONES_FILE)) if with_zones else typed
    return typed.select(
        "pickup_at",
        "dropoff_at",
        *(pl.col(name).cast(pl.Float64, strict=False) for name in _ENDS),
        distance_km=pl.col("distance_miles") * _KM_PER_MILE,
        by_zone=pl.lit(with_zones),
    )


@contextmanager
def explain_unreadable(path: Path) -> Iterator[None]:
    """Turns Polars' errors in reading the file into an UnreadableFile, which names the file."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        kind = "Parquet" if is_parquet(path) else "CSV"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnreadableFile(f"{path} cannot be read as {kind}: {reason}. Fetch or copy it again.") from error


def read_trips(path: Path, zones: Path | None = None) -> pl.DataFrame:
    """Reads a file of trips, as `scan_trips` scans it."""
    return scan_trips(path, zones).collect()


def to_utc(trips: Trips, timezone: str) -> Trips:
    """Converts the times of trips from local time to UTC.

    A time in the hour that the clocks repeat can be read twice. The trip is read so that it is shortest and does not
    end before it begins; where both readings are equal in that, as the first. A time that the clocks skip is null.
    """
    names = ("pickup_at", "dropoff_at")
    readings = {
        f"_{name}_{ambiguous}": pl.col(name)
        .dt.cast_time_unit("us")
        .dt.replace_time_zone(timezone, ambiguous=ambiguous, non_existent="null")
        .dt.convert_time_zone("UTC")
        for name in names
        for ambiguous in _READINGS
    }
    begin, second_begin, end, second_end = map(pl.col, readings)
    both_repeated = (begin != second_begin) & (end != second_end)
    return (
        trips.with_columns(**readings)
        .with_columns(
            pickup_at=pl.when(~both_repeated & (second_begin <= end)).then(second_begin).otherwise(begin),
            dropoff_at=pl.when(both_repeated & (end < begin)).then(second_end).otherwise(end),
        )
        .drop(*readings)
    )


def clean(trips: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Separates the trips that can have happened from the impossible ones.

    Returns the possible trips, sorted by pickup time, and the number of rejected trips by reason. A trip counts for its
    first reason.
    """
    seconds = {f"_{name}_seconds": pl.col(name).dt.epoch("s") for name in ("pickup_at", "dropoff_at")}
    reasons = [nw.when(condition).then(nw.lit(name)) for name, condition in impossible().items()]
    judged = nw.from_native(trips.with_columns(**seconds)).with_columns(_reason=nw.coalesce(*reasons)).to_native()
    counts = dict(judged["_reason"].drop_nulls().value_counts(sort=True).iter_rows())
    return judged.filter(pl.col("_reason").is_null()).select(trips.columns).sort("pickup_at"), counts


def positions(trips: pl.DataFrame, moment: datetime) -> pl.DataFrame:
    """Returns the trips that are under way at `moment` (in the trips' own time), with their vehicles' positions.

    Adds `latitude`, `longitude` (on the straight line between the ends) and `speed` (km/h, the trip's mean).
    """
    under_way = (pl.col("pickup_at") <= moment) & (pl.col("dropoff_at") > moment)
    share = (pl.lit(moment) - pl.col("pickup_at")) / (pl.col("dropoff_at") - pl.col("pickup_at"))
    return trips.filter(under_way).with_columns(
        latitude=(pl.col("pickup_latitude") + share * (pl.col("dropoff_latitude") - pl.col("pickup_latitude"))).round(
            6
        ),
        longitude=(
            pl.col("pickup_longitude") + share * (pl.col("dropoff_longitude") - pl.col("pickup_longitude"))
        ).round(6),
        speed=(pl.col("distance_km") / _duration_hours()).round(2),
    )


def month_file_of(name: str) -> str | None:
    """Returns the month's file that a name with any suffix stands for, such as yellow_tripdata_2016-06.

    Returns None for a name that has no month.
    """
    match = _MONTH_FILE.fullmatch(name.lower())
    return match[1] if match else None


def is_parquet(path: Path) -> bool:
    """Returns whether a file is Parquet, by the end of its name. Others are CSV, also compressed (.csv.gz)."""
    return path.suffix.lower() == ".parquet"


def _scan(path: Path) -> pl.LazyFrame:
    if is_parquet(path):
        return pl.scan_parquet(path)
    # Columns are read as strings, so that a truncated row or a word in a numeric column does not stop the file.
    return pl.scan_csv(path, infer_schema=False, truncate_ragged_lines=True, quote_char='"').filter(
        ~pl.all_horizontal(pl.all().is_null())
    )


def _parse_time(name: str, frame: pl.LazyFrame) -> pl.Expr:
    if frame.collect_schema()[name] == pl.String:
        text = pl.col(name).str.strip_chars()
        return pl.coalesce(text.str.to_datetime(form, time_unit="us", strict=False) for form in _TIMES)
    return pl.col(name).cast(pl.Datetime("us"))


def _check_times(path: Path, column: str, frame: pl.LazyFrame, name: str) -> None:
    """Raises UnreadableFile where none of the first times of a column can be read: their form is not known."""
    kind = frame.collect_schema()[name]
    if kind != pl.String:
        if not isinstance(kind, pl.Datetime):
            raise UnreadableFile(f"{path}: column {column!r} has {kind} values, not times")
        return
    with explain_unreadable(path):
        texts = frame.select(name).filter(pl.col(name).str.strip_chars() != "").head(_CHECKED_TIMES).collect()
    if texts.height and texts.select(_parse_time(name, texts.lazy()).is_null().all()).item():
        raise UnreadableFile(
            f"{path}: column {column!r} has times like {texts[name][0][:40]!r}; give YYYY-MM-DD hh:mm:ss, "
            "MM/DD/YYYY hh:mm:ss AM, or MM/DD/YYYY hh:mm"
        )


def _join_zone_centres(trips: pl.LazyFrame, zones: Path) -> pl.LazyFrame:
    if not zones.exists():
        raise FileNotFoundError(
            f"these trips have zones, not coordinates, and there is no table of zone centres at {zones}: "
            "fetch it with `city data tlc` and any month, or give one with --zones (columns LocationID, lon, lat)"
        )
    centres = pl.scan_csv(zones).select(pl.col("LocationID").cast(pl.Int64), "lat", "lon")
    repeated = centres.filter(pl.col("LocationID").is_duplicated()).select(pl.col("LocationID").unique()).collect()
    if repeated.height:
        raise UnreadableFile(f"{zones} has the zone {repeated['LocationID'][0]} twice: a zone has one centre")
    for end in ("pickup", "dropoff"):
        end_centres = centres.rename({"LocationID": f"{end}_zone", "lat": f"{end}_latitude", "lon": f"{end}_longitude"})
        trips = trips.with_columns(pl.col(f"{end}_zone").cast(pl.Int64, strict=False)).join(
            end_centres, on=f"{end}_zone", how="left"
        )
    return trips


def _duration_hours() -> pl.Expr:
    return (pl.col("dropoff_at") - pl.col("pickup_at")).dt.total_seconds() / 3600


def count(path: Path) -> int | None:
    """Returns the row count of a Parquet file, or None for another file. Raises FileNotFoundError."""
    if not path.exists():
        raise FileNotFoundError(f"no file {path}: fetch a month with `city data tlc 2015-01`")
    return pl.scan_parquet(path).select(pl.len()).collect().item() if is_parquet(path) else None
