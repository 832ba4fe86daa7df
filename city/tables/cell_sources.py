"""The sources of tables that are computed from the cells of another source, by the name of the reference table."""

from collections.abc import Callable, Mapping

import polars as pl

from city.tables.calendar import REFERENCE_CALENDAR
from city.tables.neighbours import REFERENCE_NEIGHBOURS, neighbours

REFERENCE_CENTRES = "reference/cell_centres"


def centres(cells: pl.Series) -> pl.DataFrame:
    """Returns the centres of H3 cells: `cell`, and its `latitude` and `longitude` in degrees (WGS 84)."""
    import polars_h3

    return pl.DataFrame({"cell": cells.unique().cast(pl.String)}).with_columns(
        latitude=polars_h3.cell_to_lat("cell").cast(pl.Float64).round(6),
        longitude=polars_h3.cell_to_lng("cell").cast(pl.Float64).round(6),
    )


CELL_SOURCES: Mapping[str, Callable[[pl.Series], pl.DataFrame]] = {
    REFERENCE_NEIGHBOURS: neighbours,
    REFERENCE_CENTRES: centres,
}
"""The functions of cells, by the reference table that each computes."""

COMPUTED = {REFERENCE_CALENDAR, *CELL_SOURCES}
"""The reference tables that nobody stores: they are functions of the day, or of the cells of another source."""
