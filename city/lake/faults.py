"""Counts what is wrong with the rows of a built table."""

from collections.abc import Sequence
from datetime import date

import narwhals as nw

from city.lake.lakehouse import Lakehouse
from city.tables.model import DAY, Table


def count_faults(house: Lakehouse, table: Table, days: Sequence[date] = ()) -> dict[str, int]:
    """Counts the faults of a table, or of some of its days.

    Faults are rows beyond the first of a key (`repeated keys`), and nulls, by column, where the declaration allows
    none.
    """
    rows, collect = house.read(table), house.engine.collect
    if table.daily:
        rows = rows.filter(nw.col(DAY).is_in(list(days)))
    required = [c.name for c in table.columns if not c.nullable]
    keys = collect(rows.group_by(*table.key).agg(n=nw.len()).select(nw.col("n").sum(), k=nw.len()))
    nulls = collect(rows.select(nw.col(name).is_null().sum() for name in required))
    counts = {name: int(count or 0) for name, count in nulls.row(0, named=True).items()}
    total, different = keys.row(0)
    repeated = {"repeated keys": int(total or 0) - int(different or 0)}
    return {fault: count for fault, count in (repeated | counts).items() if count}
