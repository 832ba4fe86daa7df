"""Selects the day of a settled table that rows of a later day use: a function of frames, on any engine."""

import narwhals as nw

from city.tables.model import DAY, Frame

_BUILT = "_built_day"


def latest_before(settled: Frame, calendar: Frame, days: int) -> Frame:
    """Returns the rows that each day of the calendar uses, with that day as their `day`.

    They are those of the newest day before it that is built, at most so many `days` before. So what was learned is
    still used after a midnight before which nothing was built.
    """
    built = settled.select(nw.col(DAY).alias(_BUILT)).unique()
    shifted = [built.with_columns(nw.col(_BUILT).dt.offset_by(f"{ago}d").alias(DAY)) for ago in range(1, days + 1)]
    wanted = nw.concat(shifted).join(calendar.select(DAY).unique(), on=DAY, how="inner")
    newest = wanted.group_by(DAY).agg(nw.col(_BUILT).max())
    return settled.rename({DAY: _BUILT}).join(newest, on=_BUILT, how="inner").drop(_BUILT)
