"""The types in which a domain declares its derived tables.

Nothing here computes: see build, and resources.lake.
"""

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
    """Reports an invalid declaration. The message names the table, the column and the fix."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its type, unit and description.

    `origins` are the columns that it is derived from, each as `source.column`. A string of a reference table may be
    limited to `choices`.
    """

    name: str
    kind: Kind | Literal["date"]
    description: str
    unit: str | None = None
    nullable: bool = False
    origins: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowFault:
    """A reason why a reference table's row cannot be used: the `column` with the wrong value, and what it must be."""

    column: str
    mend: str
    is_wrong: nw.Expr


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source of a table: another table, by `layer/name`.

    The transform reads the days that are built and `days_before` days before them. It reads the rows for which the SQL
    condition `where` is true. For `reference/neighbours` and `reference/cell_centres`, `cell_source` names another
    source: the table has the H3 cells next to those of that source, or their centres.

    A source that `is_context` has the windows of another contract, which the rows are joined with where they exist.

    A source that `is_settled` is a daily table whose rows of a day no longer change when the day ends, such as usual
    values. A row uses those of the newest day before its own that is built, at most `days_before` days before
    (city.tables.settled). The stream reads them from the lake, as it reads reference tables.
    """

    table: str
    days_before: int = 0
    where: str = "true"
    cell_source: str = ""
    is_context: bool = False
    is_settled: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A derived table: one row for each `key`.

    `transform` takes the frames of `sources` as keyword arguments, by their names there. It returns the columns of
    `columns`. For each timestamp `t` a source also has `_t_seconds`, the seconds since the epoch, because both engines
    can calculate with them. `day`, the local date, partitions the table. A table that is not `daily` is a snapshot.
    `time` is the column of a row's time. No day is earlier than `first_day`.

    A table with `hourly_slices` is replaced an hour at a time, as its stream fills it. It then has `local_hour`, and
    its rows depend only on the rows of their own hour, with the same value of the first column of the key.

    A table of the layer `features` is a feature view of that `version`, of the entities in its key. A table with a
    `look_back` has a row for each event of a silver table. The row is made from the event and from that many earlier
    events of its key (of the last day at most), so that the stream can make it too. People keep the tables of the
    layer `reference`.

    Raises TableError where the declaration contradicts itself.
    """

    name: str
    layer: Layer
    description: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    sources: Mapping[str, Source] = field(default_factory=dict)
    transform: Callable[..., Frame] | None = None
    time: str | None = None
    daily: bool = True
    first_day: date = date(2009, 1, 1)
    hourly_slices: bool = False
    version: int = 1
    look_back: int | None = None
    faults: tuple[RowFault, ...] = ()
    """The reasons why a row that people give is refused, beside those that follow from the columns."""

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(names) != len(set(names)):
            raise TableError(f"table {self.id!r}: a column stands twice in {names}")
        for name in (*self.key, *([DAY] if self.daily else []), *([self.time] if self.time else [])):
            if name not in names:
                raise TableError(f"table {self.id!r} uses {name!r}, which is not among its columns {names}")
        for column in self.columns:
            for origin in column.origins:
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
        """Returns the column of that name. Raises StopIteration where there is none."""
        return next(column for column in self.columns if column.name == name)
