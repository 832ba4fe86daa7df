"""The order of a view's rows in a training. It does not depend on the order in which they are read."""

import polars as pl

from city.features.views import View


def in_order(view: View, rows: pl.DataFrame) -> pl.DataFrame:
    """Returns the view's rows in order of time, then of their entities, then of every other column.

    So two trainings on the same rows are the same to the last digit, in whatever order the files of the lake list them.
    A key that stands once in the rows decides their order. Other columns are compared only where a key stands twice,
    as that of two payments of a card in one second does, because to compare all of them takes several times as long.
    """
    keys = [view.time, *view.entities]
    if rows.select(pl.struct(keys).is_duplicated().any()).item():
        keys += sorted(set(rows.columns) - set(keys))
    return rows.sort(keys)
