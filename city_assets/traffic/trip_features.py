"""The transforms of the trips by quarter of an hour, and of what is known of a cell when a quarter ends.

A trip counts in the cells of both its ends, in the quarter of an hour in which it *ends*: only then is its speed known.
So a row of a quarter knows nothing of what follows it.
"""

import narwhals as nw

from city.tables.calendar import SLOT_SECONDS, on_calendar
from city.tables.model import Frame
from city_assets.traffic.transforms import congestion, spread

LEAST_TRIPS = 10
"""The fewest trips whose mean speed decides a congestion level.

The speeds of a cell's trips in a quarter have a standard deviation of 7.8 km/h (New York, 2013 to 2016). So the mean of
ten has a standard error of 2.5 km/h, a quarter of the ten km/h between the limits of the levels."""
LAGS = 3
WEEKS = 4
"""The weeks before that tell what a cell usually has."""
_CALENDAR = ("day", "local_hour", "weekday", "holiday", "rush_hour")
_QUARTER = ("day", "quarter", "local_hour", "weekday", "rush_hour")
_PLACE = ("cell", "_quarter_seconds")


def trip_cells_quarterly(trips: Frame, calendar: Frame) -> Frame:
    """Computes the trips of each cell that ended in each quarter of an hour, their mean speed (km/h), and its spread.

    The congestion is that of `level_speed`, which is null for fewer than LEAST_TRIPS trips.
    """
    ended = on_calendar(trips.drop(*_CALENDAR), "dropoff_at", calendar).with_columns(quarter=_quarter("dropoff_at"))
    elsewhere = ended.filter(nw.col("dropoff_cell") != nw.col("pickup_cell"))
    ends = [
        rows.select(*_QUARTER, "speed", cell=nw.col(f"{end}_cell"))
        for end, rows in (("pickup", ended), ("dropoff", elsewhere))
    ]
    quarters = nw.concat(ends).group_by(*_QUARTER, "cell").agg(trips=nw.len(), **spread("speed"))
    level_speed = nw.when(nw.col("trips") >= LEAST_TRIPS).then(nw.col("speed_mean"))
    return quarters.with_columns(level_speed=level_speed).with_columns(congestion("level_speed"))


def trip_features(quarters: Frame, centres: Frame, neighbours: Frame, calendar: Frame) -> Frame:
    """Computes the features of each cell and quarter that has a trip: the quarters before, the cells around, the usual.

    What a cell usually has is of the same local hour in the weeks before, and of the day before. What is not known is
    null. It is not filled in.
    """
    features = on_calendar(quarters.drop("day", "local_hour", "weekday", "rush_hour"), "quarter", calendar)
    features = _with_lags(features, quarters)
    around = (
        neighbours.join(quarters.select(*_PLACE, "trips", "speed_mean").rename({"cell": "neighbour"}), on="neighbour")
        .group_by(*_PLACE)
        .agg(**_total())
    )
    features = features.join(
        around.select(*_PLACE, speed_neighbours=_mean_of_total()), on=list(_PLACE), how="left"
    ).join(centres, on="cell", how="inner")
    hours = quarters.with_columns(_day=_day_number()).group_by("cell", "_day", "local_hour").agg(**_total())
    hour = ["cell", "_day", "local_hour"]
    before = hours.select("cell", "local_hour", _day=nw.col("_day") + 1, speed_day_before=_mean_of_total())
    weeks = [hours.with_columns(_day=nw.col("_day") + 7 * week) for week in range(1, WEEKS + 1)]
    usual = (
        nw.concat(weeks)
        .group_by(hour)
        .agg(_speed_sum=nw.col("_speed_sum").sum(), _trips=nw.col("_trips").sum(), _weeks=nw.len())
        .select(
            *hour,
            usual_speed=_mean_of_total(),
            usual_trips=(nw.col("_trips") / nw.col("_weeks") * (SLOT_SECONDS / 3600)).round(6),
        )
    )
    return (
        features.with_columns(_day=_day_number())
        .join(before, on=hour, how="left")
        .join(usual, on=hour, how="left")
        .with_columns(
            as_of=nw.col("quarter").dt.offset_by(f"{SLOT_SECONDS // 60}m"), holiday=~nw.col("holiday").is_null()
        )
    )


def _with_lags(features: Frame, quarters: Frame) -> Frame:
    """Adds the mean speeds of the quarters before, and the trips and the mean speed of all these quarters together."""
    for lag in range(1, LAGS + 1):
        earlier = quarters.select(
            "cell",
            _quarter_seconds=nw.col("_quarter_seconds") + lag * SLOT_SECONDS,
            **{f"speed_lag_{lag}": nw.col("speed_mean"), f"_trips_lag_{lag}": nw.col("trips")},
        )
        features = features.join(earlier, on=list(_PLACE), how="left")
    pairs = [("speed_mean", "trips"), *((f"speed_lag_{lag}", f"_trips_lag_{lag}") for lag in range(1, LAGS + 1))]
    trips = nw.sum_horizontal(*(nw.col(trips).fill_null(0) for _, trips in pairs))
    total = nw.sum_horizontal(*((nw.col(speed) * nw.col(trips)).fill_null(0.0) for speed, trips in pairs))
    return features.with_columns(trips_recent=trips, speed_recent=(total / trips).round(6))


def _total() -> dict[str, nw.Expr]:
    """Returns the aggregates of a group's trips, and of their speeds' sum: means are means of trips, not of rows."""
    return {"_speed_sum": (nw.col("speed_mean") * nw.col("trips")).sum(), "_trips": nw.col("trips").sum()}


def _mean_of_total() -> nw.Expr:
    return (nw.col("_speed_sum") / nw.col("_trips")).round(6)


def _quarter(time: str) -> nw.Expr:
    """Returns the beginning of the quarter of an hour. Spark truncates to whole units only."""
    hour, quarter = nw.col(time).dt.truncate("1h"), nw.col(f"_{time}_seconds") % 3600 // SLOT_SECONDS
    begin: nw.Expr = nw.when(quarter == 0).then(hour)
    for number in range(1, 3600 // SLOT_SECONDS):
        moved = hour.dt.offset_by(f"{number * SLOT_SECONDS // 60}m")
        begin = nw.when(quarter == number).then(moved).otherwise(begin)
    return begin


def _day_number() -> nw.Expr:
    """Returns the number of the local day since the year 1, so that a week before is a subtraction on any engine."""
    years = nw.col("day").dt.year() - 1
    return years * 365 + years // 4 - years // 100 + years // 400 + nw.col("day").dt.ordinal_day()
