"""Counts what is wrong with the rows of a built table."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date

import narwhals as nw

from city.lake.lakehouse import Lakehouse
from city.tables.model import DAY, Frame, Table
from city.tables.slices import HOUR, count_parts, hour_groups

_PARTS = 4
"""A piece has as many rows as so many parts of a build, because only the key is in memory."""


def count_faults(house: Lakehouse, table: Table, days: Sequence[date] = ()) -> dict[str, int]:
    """Counts the faults of a table, or of some of its days.

    Faults are rows beyond the first of a key (`repeated keys`), and nulls, by column, where the declaration allows
    none.
    """
    required, collect, faults = [c.name for c in table.columns if not c.nullable], house.engine.collect, Counter[str]()
    for rows in _pieces(house, table, days):
        keys = collect(rows.group_by(*table.key).agg(n=nw.len()).select(nw.col("n").sum(), k=nw.len()))
        nulls = collect(rows.select(nw.col(name).is_null().sum() for name in required))
        total, different = keys.row(0)
        faults["repeated keys"] += int(total or 0) - int(different or 0)
        faults.update({name: int(count or 0) for name, count in nulls.row(0, named=True).items()})
    return {fault: count for fault, count in faults.items() if count}


def _pieces(house: Lakehouse, table: Table, days: Sequence[date]) -> Iterator[Frame]:
    """Yields the rows in pieces that have all rows of a key, so that the memory does not grow with the rows of a day.

    The rows of an hourly table depend on those of their own hour, so its repeated keys are in the same hour.
    """
    if not table.daily:
        yield house.read(table)
        return
    limit = house.engine.part_rows and _PARTS * house.engine.part_rows
    for day in days:
        rows = house.read(table).filter(nw.col(DAY) == day)
        if limit is None or (count := house.count(table, [day])) <= limit:
            yield rows
        elif table.hourly_slices:
            by_hour = dict(house.engine.collect(rows.group_by(HOUR).agg(n=nw.len())).sort(HOUR).iter_rows())
            yield from (rows.filter(nw.col(HOUR).is_in(hours)) for hours in hour_groups(by_hour, limit))
        else:
            parts = count_parts(count, limit)
            yield from (house.engine.part(rows, table.key[0], number, parts) for number in range(parts))
