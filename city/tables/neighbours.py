"""The cells around a cell: a source of tables that is computed from the cells of another source."""

import polars as pl

REFERENCE_NEIGHBOURS = "reference/neighbours"


def neighbours(cells: pl.Series) -> pl.DataFrame:
    """Returns the pairs of H3 cells (`cell`, `neighbour`) that share an edge and are both among the given cells."""
    import polars_h3

    pairs = pl.DataFrame({"cell": cells.unique()}).with_columns(neighbour=polars_h3.grid_ring("cell", 1))
    pairs = pairs.cast({"cell": pl.String, "neighbour": pl.List(pl.String)})  # without cells, the pairs have no type
    return pairs.explode("neighbour").filter(pl.col("neighbour").is_in(cells.implode()))
