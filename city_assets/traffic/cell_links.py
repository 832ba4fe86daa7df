"""Which cells' traffic a cell's traffic depends on, and which of them lead it: functions of frames, on any engine."""

from collections.abc import Callable
from datetime import timedelta

import narwhals as nw

from city.tables.calendar import on_calendar
from city.tables.model import Frame
from city_assets.traffic.transforms import mean

START = "_window_start_seconds"
CHANGE = 3
"""The change of a speed is that since so many windows before."""
LEADER_DAYS = 14
"""The days from which the leaders are computed."""
LAST_HOUR = 23
"""The last hour of a day is left out of what is learned from it, so that the result is settled before the day ends."""
_LEAST_WINDOWS = 60
"""A pair of cells needs so many windows in which both have a change."""
_MOMENTS = ("own", "leading", "own_square", "leading_square", "product")


def links_of(neighbours: Frame, road_links: Frame) -> Frame:
    """Returns the cells around each cell: those that people linked it to, and else those that share an edge with it."""
    linked = road_links.select("cell").unique()
    return nw.concat([road_links.select("cell", "neighbour"), neighbours.join(linked, on="cell", how="anti")])


def with_speed(windows: Frame) -> Frame:
    """Returns the windows in which a vehicle reports its speed, without the column `day`."""
    return windows.drop("day").filter(~nw.col("speed_mean").is_null())


def shift_speeds(speeds: Frame, seconds: int, name: str) -> Frame:
    """Returns the speeds at the time at which they are so many seconds old, as the column `name`."""
    return speeds.select("cell", nw.col(START) + seconds, nw.col("speed_mean").alias(name))


def with_change(current: Frame, speeds: Frame, seconds: int) -> Frame:
    """Adds to each of the current speeds its change in so many seconds, as the column `change`.

    `speeds` has the speeds of all windows.
    """
    earlier = shift_speeds(speeds, seconds, "_earlier")
    joined = current.join(earlier, on=["cell", START], how="left")
    return joined.with_columns(change=nw.col("speed_mean") - nw.col("_earlier")).drop("_earlier")


def pair_changes(every: timedelta) -> Callable[..., Frame]:
    """Returns the transform that compares the changes of each cell with the changes around it, a while before.

    It computes, for each day and pair of a cell and a neighbour, the means of both changes, of their squares and of
    their product. The neighbour's change ends where the cell's begins. `every` is the length of a window.
    """
    before = CHANGE * int(every.total_seconds())

    def transform(windows: Frame, neighbours: Frame, road_links: Frame, calendar: Frame) -> Frame:
        # Only changes that do not overlap: the others would say the same again, at three times the cost.
        windows = with_speed(windows).filter(nw.col(START) % before == 0)
        on_day = on_calendar(windows, "window_start", calendar)
        speeds = windows.select("cell", START, "speed_mean")
        changing = with_change(speeds, speeds, before).filter(~nw.col("change").is_null())
        own = (
            on_day.filter(nw.col("local_hour") < LAST_HOUR)
            .select("day", "cell", START)
            .join(changing.select("cell", START, own="change"), on=["cell", START], how="inner")
        )
        leading = changing.select(nw.col(START) + before, neighbour="cell", leading="change")
        pairs = (
            links_of(neighbours, road_links)
            .join(leading, on="neighbour", how="inner")
            .join(own, on=["cell", START], how="inner")
        )
        own_change, leading_change = nw.col("own"), nw.col("leading")
        return (
            pairs.with_columns(
                own_square=own_change * own_change,
                leading_square=leading_change * leading_change,
                product=own_change * leading_change,
            )
            .group_by("day", "cell", "neighbour")
            .agg(windows=nw.len(), **{name: mean(name) for name in _MOMENTS})
        )

    return transform


def leaders(pairs: Frame) -> Frame:
    """Computes how strongly each neighbour leads a cell, from a day and the 13 days before it.

    The weight is the correlation of the cell's change with the neighbour's change before it, where it is positive.
    """
    weighted = pairs.with_columns(**{name: nw.col(name) * nw.col("windows") for name in _MOMENTS})
    days = [weighted] + [weighted.with_columns(nw.col("day").dt.offset_by(f"{ago}d")) for ago in range(1, LEADER_DAYS)]
    key = ["day", "cell", "neighbour"]
    sums = nw.concat(days).group_by(*key).agg(nw.col("windows", *_MOMENTS).sum())
    means = sums.filter(nw.col("windows") >= _LEAST_WINDOWS).with_columns(
        **{name: nw.col(name) / nw.col("windows") for name in _MOMENTS}
    )
    spread = (nw.col("own_square") - nw.col("own") * nw.col("own")) * (
        nw.col("leading_square") - nw.col("leading") * nw.col("leading")
    )
    covariance = nw.col("product") - nw.col("own") * nw.col("leading")
    moving = means.filter(spread > 0, covariance > 0)
    return moving.with_columns(weight=(covariance / spread**0.5).round(6)).filter(nw.col("weight") > 0)
