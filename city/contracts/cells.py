"""Computes the H3 cells that a contract derives from its positions."""

import polars as pl
import polars_h3

from city.contracts.model import Contract


def with_cells(contract: Contract, rows: pl.DataFrame) -> pl.DataFrame:
    """Adds the contract's cells (hexadecimal strings). A row without a position has none."""
    return rows.with_columns(
        polars_h3.latlng_to_cell(c.latitude, c.longitude, c.resolution, return_dtype=pl.String).alias(c.name)
        for c in contract.cells
    )
