"""The parts of a table that a build replaces: local days, or some hours of one day."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import narwhals as nw

from city.tables.model import DAY

HOUR = "local_hour"


@dataclass(frozen=True)
class Slices:
    """The days from `first` to `last`, both included. With `hours`, only these local hours of the days."""

    first: date
    last: date
    hours: tuple[int, ...] | None = None

    def sql(self) -> str:
        """Returns the condition in SQL, for Delta's replaceWhere."""
        days = f"{DAY} >= '{self.first}' AND {DAY} <= '{self.last}'"
        return days if self.hours is None else f"{days} AND {HOUR} IN ({', '.join(map(str, self.hours))})"

    def filters(self) -> list[tuple[str, str, str | list[str]]]:
        """Returns the condition as filters of a Delta table's partitions."""
        days: list[tuple[str, str, str | list[str]]] = [(DAY, ">=", str(self.first)), (DAY, "<=", str(self.last))]
        return days if self.hours is None else [*days, (HOUR, "in", [str(hour) for hour in self.hours])]

    def expr(self) -> nw.Expr:
        """Returns the condition as an expression that filters a frame."""
        days = nw.col(DAY).is_between(nw.lit(self.first), nw.lit(self.last))
        return days if self.hours is None else days & nw.col(HOUR).is_in(self.hours)

    def days(self) -> list[date]:
        """Lists the days."""
        return [self.first + timedelta(days=n) for n in range((self.last - self.first).days + 1)]

    def before(self, days: int) -> "Slices":
        """Returns these days and so many days before them, with all hours."""
        return Slices(self.first - timedelta(days=days), self.last)


def chunks(days: Sequence[date], rows: dict[date, int], limit: int | None) -> Iterator[Slices]:
    """Groups days into runs of consecutive days. A run has at most `limit` rows, but at least one day."""
    begin: date | None = None
    row_count = 0
    previous: date | None = None
    for day in sorted(days):
        count = rows.get(day, 0)
        broken = previous is not None and day - previous > timedelta(days=1)
        full = limit is not None and row_count + count > limit
        if begin is not None and previous is not None and (broken or full):
            yield Slices(begin, previous)
            begin, row_count = None, 0
        begin = begin or day
        row_count += count
        previous = day
    if begin is not None and previous is not None:
        yield Slices(begin, previous)


def hour_groups(rows: Mapping[int, int], limit: int) -> Iterator[tuple[int, ...]]:
    """Groups hours, by their number of rows. A group has at most `limit` rows, but at least one hour."""
    group: list[int] = []
    for hour in sorted(rows):
        if group and sum(rows[other] for other in group) + rows[hour] > limit:
            yield tuple(group)
            group = []
        group.append(hour)
    if group:
        yield tuple(group)


def count_parts(rows: int, limit: int) -> int:
    """Returns the number of parts with about `limit` rows each; at least one."""
    return max(1, -(-rows // limit))
