"""The words that a domain declares its derived tables in. Nothing here computes: see build, and resources.lake."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import narwhals as nw

from city.contracts.model import Kind

Layer = Literal["bronze", "silver", "gold", "features", "reference"]
Frame = nw.LazyFrame[Any]
DAY = "day"


class TableError(ValueError):
    """A declaration that cannot hold: the message names the table, the column and the mend."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its type, unit, meaning, and the columns that it comes from, as `source.column`."""

    name: str
    kind: Kind | Literal["date"]
    means: str
    unit: str | None = None
    nullable: bool = False
    of: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a table is made from: `layer/name` of another table, with so many days before those that are built, and of
    it the rows for which the SQL condition `where` holds. `reference/neighbours` has the H3 cells next to those of
    the source `of`."""

    table: str
    days_before: int = 0
    where: str = "true"
    of: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A derived table: one row for each `key`.

    `transform` is given the frames of `sources` by their names there, and gives the columns of `columns`. Of each
    timestamp `t` a source also has `_t_seconds`, since the epoch, which both engines can calculate with. `day`, the
    local date, partitions the table; one that is not `daily` is a snapshot. `time` is the column of a row's time.
    With `hourly_slices` the table is replaced an hour at a time, as its stream fills it; it then has `local_hour`, and
    its rows depend on no others than their hour's.
    A table of the layer `features` is a feature view of that `version`, of the entities in its key. One with a
    `look_back` has a row for each event of a silver table, made from it and that many events of its key before it (of
    the last day at most), so that the stream can make it too. One of the layer `reference` is kept by people.
    """

    name: str
    layer: Layer
    means: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    sources: Mapping[str, Source] = field(default_factory=dict)
    transform: Callable[..., Frame] | None = None
    time: str | None = None
    daily: bool = True
    first_day: date = date(2026, 1, 1)
    hourly_slices: bool = False
    version: int = 1
    look_back: int | None = None

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(names) != len(set(names)):
            raise TableError(f"table {self.id!r}: a column stands twice in {names}")
        for name in (*self.key, *([DAY] if self.daily else []), *([self.time] if self.time else [])):
            if name not in names:
                raise TableError(f"table {self.id!r} uses {name!r}, which is not among its columns {names}")
        for column in self.columns:
            for origin in column.of:
                if origin.partition(".")[0] not in self.sources:
                    raise TableError(
                        f"table {self.id!r}: column {column.name!r} comes from {origin!r}, but its sources are "
                        f"{sorted(self.sources)}"
                    )

    @property
    def id(self) -> str:
        """`layer/name`, as other tables name it."""
        return f"{self.layer}/{self.name}"

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)
