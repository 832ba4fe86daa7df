"""Turns recorded trips into the positions of vehicles, a local day at a time, so that memory is bounded.

A vehicle goes straight from one end of its trip to the other, at the trip's mean speed. The files name no vehicle, so
each trip has a vehicle of its own, whose pseudonym is made of the day and a number.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl

from city import local_time
from city.tables.model import Table
from city_assets.traffic.trips import clean, explain_unreadable, month_file_of, scan_trips, to_utc

_BATCH = 200_000
_MICROSECONDS = 1_000_000
_MONTH_LENGTH = len("2016-06")


@dataclass(frozen=True)
class Period:
    """The trips that are wanted: those that begin on a local day from `first` to `last`, and end before `now`.

    `now` is the city's local time. Each bound may be absent (None).
    """

    now: datetime
    first: date | None = None
    last: date | None = None

    def reasons(self, path: Path) -> dict[str, pl.Expr]:
        """Returns the reasons why a trip of the file is left out, each with its condition on its published local times.

        The TLC's files have some trips of other months, mostly of a clock that is wrong. They would make a day of
        their own with one trip.
        """
        pickup = pl.col("local_pickup_at")
        day = pickup.dt.date()
        reasons = {
            "in the future": pl.col("local_dropoff_at") > self.now,
            f"before {Table.first_day}": day < Table.first_day,
        }
        if file := month_file_of(path.name):
            month = file[-_MONTH_LENGTH:]
            reasons[f"not of {month}, the month of the file"] = pickup.dt.strftime("%Y-%m") != month
        if self.first is not None or self.last is not None:
            first, last = self.first or date.min, self.last or date.max
            reasons["not of the days from --first to --last"] = ~day.is_between(first, last)
        return reasons


@dataclass
class TripDays:
    """Trips in files of `folder`, by the local day of their pickup in `timezone`.

    `read`, `kept` and `by_zone` count trips, `rejected` counts them by reason, `repeated` those that are equal to
    another. `cut` counts the positions after midnight that no day has, because no trip begins on it.
    """

    folder: Path
    timezone: str
    read: int = 0
    kept: int = 0
    by_zone: int = 0
    repeated: int = 0
    cut: int = 0
    rejected: dict[str, int] = field(default_factory=dict)

    def add(self, path: Path, period: Period, zones: Path | None, progress: Callable[[int], None]) -> None:
        """Adds the possible trips of a file. `progress` is called with the number of trips read so far.

        Raises UnknownLayout, UnreadableFile, FileNotFoundError.
        """
        frame, count = scan_trips(path, zones), 0
        with explain_unreadable(path):
            for part in frame.collect_batches(chunk_size=_BATCH, maintain_order=True, engine="streaming"):
                self._add(part, period.reasons(path))
                count += part.height
                progress(count)

    def days(self) -> list[date]:
        """Lists the local days on which trips begin, ascending."""
        return sorted(date.fromisoformat(folder.name) for folder in self.folder.iterdir())

    def positions(self, day: date, every: timedelta) -> pl.DataFrame:
        """Returns the positions of a local day as events of the contract: of its trips, and of those of the day before.

        A trip has a position at its pickup, and then one after each `every`, until its dropoff.
        """
        begin, end = local_time.bounds(day, self.timezone)
        before = positions_along(self._load(day - timedelta(days=1)).filter(pl.col("dropoff_at") > begin), every)
        of_day = positions_along(self._load(day, is_counted=True), every)
        after = of_day.filter(pl.col("timestamp") >= end)
        if not (self.folder / str(day + timedelta(days=1))).exists():
            self.cut += after.height
        return pl.concat([before.filter(pl.col("timestamp") >= begin), of_day.filter(pl.col("timestamp") < end)])

    def _add(self, trips: pl.DataFrame, period_reasons: dict[str, pl.Expr]) -> None:
        local = pl.col("pickup_at", "dropoff_at").name.prefix("local_")
        utc = to_utc(trips.with_columns(local, day=pl.col("pickup_at").dt.date()), self.timezone)
        skipped = pl.any_horizontal(
            pl.col(name).is_null() & pl.col(f"local_{name}").is_not_null() for name in ("pickup_at", "dropoff_at")
        )
        real = utc.filter(~skipped)
        possible, counts = clean(real)
        reason = pl.coalesce(pl.when(condition).then(pl.lit(name)) for name, condition in period_reasons.items())
        judged = possible.with_columns(_reason=reason).drop("local_pickup_at", "local_dropoff_at")
        if count := trips.height - real.height:
            counts["in an hour that the clocks skip"] = count
        counts |= dict(judged["_reason"].drop_nulls().value_counts().iter_rows())
        for name, number in counts.items():
            self.rejected[name] = self.rejected.get(name, 0) + number
        kept = judged.filter(pl.col("_reason").is_null()).drop("_reason")
        self.read, self.kept = self.read + trips.height, self.kept + kept.height
        self.by_zone += int(kept["by_zone"].sum())
        for (day,), rows in kept.partition_by("day", as_dict=True).items():
            folder = self.folder / str(day)
            folder.mkdir(parents=True, exist_ok=True)
            rows.write_parquet(folder / f"{len(list(folder.iterdir()))}.parquet")

    def _load(self, day: date, is_counted: bool = False) -> pl.DataFrame:
        """Reads the day's trips, each once, and gives each a number. The same trips have the same numbers."""
        folder = self.folder / str(day)
        if not folder.exists():
            return _NO_TRIPS.clone()
        trips = pl.read_parquet(folder / "*.parquet")
        different = trips.unique()
        self.repeated += trips.height - different.height if is_counted else 0
        return different.sort(different.columns).with_row_index("number")


def positions_along(trips: pl.DataFrame, every: timedelta) -> pl.DataFrame:
    """Returns the positions of trips at a regular interval, as events of the contract.

    `trips` has times in UTC, a `day` and a `number` beside the columns of `scan_trips`.
    """
    step = int(every.total_seconds() * _MICROSECONDS)
    length = (pl.col("dropoff_at") - pl.col("pickup_at")).dt.total_microseconds()
    share = pl.col("after") / pl.col("length")
    number = pl.col("day").dt.strftime("%Y%m%d") + "_" + pl.col("number").cast(pl.String).str.zfill(7)
    rows = trips.with_columns(
        speed=(pl.col("distance_km") / (length / (3600 * _MICROSECONDS))).round(2),
        name=number,
        length=length,
        after=pl.int_ranges(0, length, step),
    ).explode("after")
    return rows.select(
        vehicle_id="taxi_" + pl.col("name"),
        timestamp=pl.col("pickup_at") + pl.duration(microseconds="after"),
        latitude=_between("latitude", share),
        longitude=_between("longitude", share),
        speed="speed",
        trip_id="trip_" + pl.col("name"),
    )


def _between(axis: str, share: pl.Expr) -> pl.Expr:
    pickup, dropoff = pl.col(f"pickup_{axis}"), pl.col(f"dropoff_{axis}")
    return (pickup + share * (dropoff - pickup)).round(6)


_UTC = pl.Datetime("us", "UTC")
_NO_TRIPS = pl.DataFrame(
    schema={
        "number": pl.UInt32(),
        "pickup_at": _UTC,
        "dropoff_at": _UTC,
        **{f"{end}_{axis}": pl.Float64() for end in ("pickup", "dropoff") for axis in ("latitude", "longitude")},
        "distance_km": pl.Float64(),
        "by_zone": pl.Boolean(),
        "day": pl.Date(),
    }
)
