"""The columns of extracted values beside those of the paths."""

import polars as pl

from city.sources.shape import TYPES, Shape

ROW, ITEM = "_row", "_item"
"""The columns with a message's index, and with the item's index in its list (null for a message without items)."""
MISFITS = "_misfits"
"""The column with the values of a row that have a wrong type, and are null: path (empty for the item itself), and why.
"""
_MISFITS = pl.List(pl.Struct({"path": pl.String, "reason": pl.String}))
NO_MISFITS = pl.lit([], _MISFITS).alias(MISFITS)

Reasons = dict[int, list[str]]
"""The reasons against messages, by their index."""


def row_schema(shape: Shape) -> dict[str, pl.DataType]:
    """Returns the types of the columns of extracted values."""
    paths = {path: TYPES[leaf] for path, leaf in shape.paths.items()}
    return {**paths, ROW: pl.Int64(), ITEM: pl.Int64(), MISFITS: _MISFITS}
