"""Facts about the city on a local day, as sentences and figures. Each domain's today.py returns some."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import polars as pl

from city import local_time
from city.contracts.registry import modules
from city.lake.tables import scan_table
from city.settings import Settings
from city.tables.model import DAY
from city.tables.registry import table_of

WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Fact:
    """A sentence, or a figure with its label, or both. `before` is the figure of the same day a week ago."""

    name: str
    sentence: str = ""
    label: str = ""
    value: float | None = None
    unit: str = ""
    before: float | None = None


def facts(config: Settings) -> list[Fact]:
    """The facts of today so far: those that `today(config, day)` of each active domain's today.py returns."""
    day = datetime.now(UTC).astimezone(local_time.zone(config.timezone)).date()
    return [fact for module in modules(config, "today") for fact in module.today(config, day)]


def of_day(config: Settings, table: str, day: date, time: str | None = None) -> pl.LazyFrame:
    """The rows of a table for a local day, by its column `day` or by the column `time`. There are none where the table
    is not built yet."""
    rows = scan_table(config.lake, table_of(table))
    if time is None:
        return rows.filter(pl.col(DAY) == day)
    begin, end = local_time.bounds(day, config.timezone)
    return rows.filter(pl.col(time) >= begin, pl.col(time) < end)


def count_text(count: int, thing: str) -> str:
    """The count of a thing in words: `no machine`, `1 machine`, `1,200 machines`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}" if count else f"no {thing}"
