"""Reads the newest rows and the size of a Delta table, from its log and its newest files alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from deltalake import DeltaTable


@dataclass(frozen=True)
class TablePreview:
    """The newest rows of a table (`frame`), and its number of rows, number of files and version."""

    frame: pl.DataFrame
    rows: int
    files: int
    version: int


def preview_table(path: Path, rows: int, order: Sequence[str]) -> TablePreview:
    """Reads the newest rows of the table, by the columns of `order`. Raises TableNotFoundError."""
    table = DeltaTable(path)
    actions = pl.DataFrame(table.get_add_actions(flatten=True)).sort("modification_time", descending=True)
    total = int(actions["num_records"].sum()) if actions.height else 0
    newest = actions.filter(pl.col("num_records").cum_sum() - pl.col("num_records") < rows)["path"].to_list()
    frames = [pl.read_parquet(path / name, hive_partitioning=True) for name in newest]
    frame = pl.concat(frames, how="diagonal_relaxed") if frames else pl.scan_delta(str(path)).head(0).collect()
    return TablePreview(
        (frame.sort(order, descending=True) if order else frame).head(rows), total, actions.height, table.version()
    )
