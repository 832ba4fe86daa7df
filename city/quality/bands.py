"""Learns the usual volumes and means of each hour of the week from the past, as bands, and finds unusual hours."""

import polars as pl

_FEWEST = 3  # comparable hours that a band needs
_SPREADS = 6.0
_LEAST_SHARE = 0.15  # the half width of a band is at least this share of its middle
_FEWEST_OF_WEEKDAY = 2  # hours of the same weekday that acquit an hour
_MAD = 1.4826  # of a normal distribution, the standard deviation over the median absolute deviation


def band(history: pl.DataFrame, value: str, by: list[str]) -> pl.DataFrame:
    """Computes the usual band of `value` for each of `by`, local hour and kind of day (weekend or not).

    `history` has the columns `day`, `local_hour`, `weekday`, those of `by`, and `value`. Returns `low`, `middle` and
    `high`. The middle is the median. The band reaches from it by six times the median absolute deviation (scaled to a
    standard deviation) on either side, so a few bad days do not widen it.
    """
    keys = [*by, "local_hour", "weekend"]
    middle = pl.col(value).median()
    return (
        history.with_columns(weekend=pl.col("weekday") > 5)
        .group_by(keys)
        .agg(middle=middle, spread=(pl.col(value) - middle).abs().median() * _MAD, seen=pl.col(value).count())
        .filter(pl.col("seen") >= _FEWEST)
        .with_columns(width=pl.max_horizontal(_SPREADS * pl.col("spread"), _LEAST_SHARE * pl.col("middle").abs()))
        .select(*keys, "middle", low=pl.col("middle") - pl.col("width"), high=pl.col("middle") + pl.col("width"))
    )


def unusual(day: pl.DataFrame, history: pl.DataFrame, value: str, by: list[str]) -> pl.DataFrame:
    """Returns the rows of a day that are outside their band, with the band. Hours without a band are not judged.

    An hour that is as usual on its weekday is not unusual: a Friday evening is no Monday evening. The few weeks of a
    new city have too few hours of each weekday for bands of their own.
    """
    judged = day.with_columns(weekend=pl.col("weekday") > 5).join(
        band(history, value, by), on=[*by, "local_hour", "weekend"], how="inner"
    )
    outside = (pl.col(value) < pl.col("low")) | (pl.col(value) > pl.col("high"))
    keys = [*by, "local_hour", "weekday"]
    weekdays = history.group_by(keys).agg(_usual=pl.col(value).median(), _seen=pl.col(value).count())
    known = weekdays.filter(pl.col("_seen") >= _FEWEST_OF_WEEKDAY)
    is_usual = (pl.col(value) - pl.col("_usual")).abs() <= _LEAST_SHARE * pl.col("_usual").abs()
    unlike = judged.filter(outside).join(known, on=keys, how="left").filter(~is_usual.fill_null(value=False))
    return unlike.select("day", "local_hour", *by, value, "low", "middle", "high")
