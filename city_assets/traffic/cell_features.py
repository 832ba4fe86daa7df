"""The transforms of a cell's feature table and of what is usual in the cell: functions of frames, on any engine."""

from collections.abc import Callable
from datetime import timedelta

import narwhals as nw

from city.tables.calendar import SLOT_SECONDS, on_calendar
from city.tables.model import Frame
from city.tables.settled import latest_before
from city_assets.traffic.cell_links import CHANGE, LAST_HOUR, START, links_of, shift_speeds, with_change, with_speed
from city_assets.traffic.transforms import mean

LAGS = (1, 2, 3)
"""The windows before whose speed is a feature of its own."""
PAST = (*LAGS, 5, 8, 11)
"""The windows before that the statistics of the recent speed use, beside the window itself."""
USUAL_DAYS = 14
"""The days from which the usual speed is computed: two of each day of the week."""
LEARNED_DAYS = 7
"""What is learned from the days before, usual speeds and leaders, is used for a week where no newer day is built."""
USUAL_AHEAD = timedelta(minutes=15)
"""How far ahead of the window's end the later usual speed is: as far as the models predict at most."""
RAIN_SECONDS = 300
"""The length of the window location_precipitation."""


def cell_features(every: timedelta) -> Callable[..., Frame]:
    """Returns the transform that computes the features of each cell and window, for windows of the length `every`.

    A row has the window's speed and that of windows before, their statistics, the cells around, the mean of all cells,
    the usual speed, the rain and the local time. What a window that does not exist would have is null. It is not
    filled in. A window in which no vehicle reports its speed counts as one that does not exist. Windows that are not in
    the calendar are used for look-back only, and have no row.
    """
    seconds = int(every.total_seconds())

    def transform(
        windows: Frame,
        neighbours: Frame,
        road_links: Frame,
        leaders: Frame,
        usual: Frame,
        precipitation: Frame,
        calendar: Frame,
    ) -> Frame:
        known = with_speed(windows)
        features = on_calendar(known, "window_start", calendar)
        current_speeds = features.select("day", "cell", START, "speed_mean")
        speeds = known.select("cell", START, "speed_mean")
        for lag in PAST:
            earlier = shift_speeds(speeds, lag * seconds, f"speed_lag_{lag}")
            features = features.join(earlier, on=["cell", START], how="left")
        features = features.with_columns(**_recent())
        changing = with_change(current_speeds, speeds, CHANGE * seconds)
        leaders, usual = (latest_before(learned, calendar, LEARNED_DAYS) for learned in (leaders, usual))
        for around in (_around(changing, links_of(neighbours, road_links)), _leading(changing, leaders)):
            features = features.join(around, on=["cell", START], how="left")
        features = _with_city(features, speeds, CHANGE * seconds)
        features = _with_rain(features, precipitation, seconds)
        usual_of_hours = usual.join(calendar.select("local_hour").unique(), on="local_hour", how="semi")
        features = _with_usual(features, usual_of_hours, seconds)
        return features.with_columns(
            as_of=nw.col("window_start").dt.offset_by(f"{seconds}s"), holiday=~nw.col("holiday").is_null()
        )

    return transform


def _recent() -> dict[str, nw.Expr]:
    """Returns the statistics of the window's speed and of those before it."""
    past = [nw.col(name) for name in ("speed_mean", *(f"speed_lag_{lag}" for lag in PAST))]
    average = nw.mean_horizontal(*past)
    variance = nw.mean_horizontal(*(speed * speed for speed in past)) - average * average
    return {
        "speed_recent": nw.mean_horizontal(*past[: 1 + len(LAGS)]).round(6),
        "speed_past_mean": average.round(6),
        "speed_past_std": _root(variance.round(6)),
        "speed_past_min": nw.min_horizontal(*past).round(6),
        "speed_past_max": nw.max_horizontal(*past).round(6),
    }


def _root(variance: nw.Expr) -> nw.Expr:
    """Returns the square root of a variance, which rounding may have made negative."""
    return (nw.when(variance > 0).then(variance).otherwise(variance * 0) ** 0.5).round(6)


def _around(changing: Frame, links: Frame) -> Frame:
    """Computes the speed around each cell and window, and its change."""
    change = nw.col("change")
    return (
        links.join(changing.select(START, "speed_mean", "change", neighbour="cell"), on="neighbour", how="inner")
        .group_by("cell", START)
        .agg(
            speed_neighbours=mean("speed_mean"),
            speed_slowest_neighbour=nw.col("speed_mean").min().round(6),
            speed_fastest_neighbour=nw.col("speed_mean").max().round(6),
            neighbours_change=mean("change"),
            neighbours_largest_drop=change.min().round(6),
        )
    )


def _leading(changing: Frame, leaders: Frame) -> Frame:
    """Computes the speed of the cells that lead each cell, and its change: means by the weights that the day uses."""
    led = leaders.select("day", "cell", "neighbour", "weight").join(
        changing.select("day", START, "speed_mean", "change", neighbour="cell"), on=["day", "neighbour"], how="inner"
    )
    weight = nw.col("weight")
    sums = (
        led.with_columns(
            _speed=nw.col("speed_mean") * weight,
            _change=nw.col("change") * weight,
            _changing=nw.when(~nw.col("change").is_null()).then(weight),
        )
        .group_by("cell", START)
        .agg(nw.col("weight", "_speed", "_change", "_changing").sum())
    )
    return sums.select(
        "cell",
        START,
        speed_leaders=(nw.col("_speed") / weight).round(6),
        leaders_change=nw.when(nw.col("_changing") > 0).then((nw.col("_change") / nw.col("_changing")).round(6)),
    )


def _with_city(features: Frame, speeds: Frame, before: int) -> Frame:
    """Adds the mean speed of all cells, in the window and so many seconds before."""
    city = speeds.group_by(START).agg(speed_city=mean("speed_mean"))
    earlier = city.select(nw.col(START) + before, speed_city_before=nw.col("speed_city"))
    return features.join(city, on=START, how="left").join(earlier, on=START, how="left")


def _with_rain(features: Frame, precipitation: Frame, seconds: int) -> Frame:
    """Adds the rain of the whole city in the two windows of five minutes that ended at least five minutes ago.

    So it is known when the features are.
    """
    rain = precipitation.group_by(START).agg(precipitation=mean("precipitation_mean"))
    ended = nw.col(START) + seconds
    features = features.with_columns(_rain_seconds=ended - ended % RAIN_SECONDS - 2 * RAIN_SECONDS)
    for name, windows_before in (("precipitation", 0), ("precipitation_before", 1)):
        earlier = rain.select(
            _rain_seconds=nw.col(START) + windows_before * RAIN_SECONDS, **{name: nw.col("precipitation")}
        )
        features = features.join(earlier, on="_rain_seconds", how="left")
    return features


def _with_usual(features: Frame, usual: Frame, seconds: int) -> Frame:
    """Adds what is usual in the cell by the days before: its level, and its speed at the window's end and later.

    The usual speed of an hour is that of its middle. Between two of them it is interpolated.
    """
    known = usual.select(
        "day",
        "cell",
        "local_hour",
        *(f"usual_speed{when}" for when in ("", "_before", "_after")),
        speed_level=nw.col("level_mean"),
        speed_level_std=nw.col("level_std"),
    )
    features = features.join(known, on=["day", "cell", "local_hour"], how="left")
    into_hour = (nw.col("slot_minute") * 60 + nw.col(START) % SLOT_SECONDS + seconds) / 3600
    return features.with_columns(
        speed_usual=_interpolated(into_hour).round(6),
        speed_usual_later=_interpolated(into_hour + USUAL_AHEAD.total_seconds() / 3600).round(6),
    )


def _interpolated(hours: nw.Expr) -> nw.Expr:
    """Returns the usual speed at a time from half an hour before the beginning of an hour to an hour and a half after.

    `hours` is the time since the beginning, in hours. A neighbouring hour without a speed has that of the hour itself.
    """
    speed = nw.col("usual_speed")
    before, after = (nw.coalesce(nw.col(f"usual_speed_{when}"), speed) for when in ("before", "after"))
    rising = before + (speed - before) * (hours + 0.5)
    falling = speed + (after - speed) * (hours - 0.5)
    return nw.when(hours < 0.5).then(rising).otherwise(falling)


def speeds_hourly(windows: Frame, calendar: Frame) -> Frame:
    """Computes the number of windows of each cell and local hour, and the mean, and mean square, of their speeds."""
    hours = on_calendar(with_speed(windows), "window_start", calendar)
    return (
        hours.with_columns(_square=nw.col("speed_mean") * nw.col("speed_mean"))
        .group_by("day", "cell", "local_hour")
        .agg(windows=nw.len(), speed_mean=mean("speed_mean"), speed_square=mean("_square"))
    )


def usual_speeds(hours: Frame) -> Frame:
    """Computes the usual speed of each cell by the local hour, and its level, from a day and the 13 days before it.

    The last hour of a day counts from the next day on. So the rows of a day are settled before the day ends, and the
    stream has them when the next day begins.
    """
    weighted = hours.select(
        "day",
        "cell",
        "local_hour",
        "windows",
        _speed=nw.col("speed_mean") * nw.col("windows"),
        _square=nw.col("speed_square") * nw.col("windows"),
    )
    days = [weighted.filter(nw.col("local_hour") < LAST_HOUR)] + [
        weighted.with_columns(nw.col("day").dt.offset_by(f"{ago}d")) for ago in range(1, USUAL_DAYS)
    ]
    sums = {name: nw.col(name).sum() for name in ("windows", "_speed", "_square")}
    by_hour = nw.concat(days).group_by("day", "cell", "local_hour").agg(**sums)
    average = nw.col("_speed") / nw.col("windows")
    by_cell = by_hour.group_by("day", "cell").agg(**sums)
    levels = by_cell.select(
        "day",
        "cell",
        level_mean=average.round(6),
        level_std=_root((nw.col("_square") / nw.col("windows") - average * average).round(6)),
    )
    usual = by_hour.select("day", "cell", "local_hour", usual_speed=average.round(6))
    for name, ahead in (("before", 1), ("after", 23)):
        shifted = usual.select(
            "day", "cell", (nw.col("local_hour") + ahead) % 24, nw.col("usual_speed").alias(f"usual_speed_{name}")
        )
        usual = usual.join(shifted, on=["day", "cell", "local_hour"], how="left")
    return usual.join(levels, on=["day", "cell"], how="left")
