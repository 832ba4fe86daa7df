"""Replaces whole partitions of a table by files that Polars' own sink writes, in one commit.

Polars writes partitioned Parquet faster than deltalake does, from the streaming engine's threads and without a way
through Arrow; deltalake commits what was written. The row counts go to the log; no smallest and largest values, since
a partition is read whole.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
from deltalake.transaction import AddAction, RemoveAction

from city.file_lock import file_lock
from city.lake.retry import committed

Partitions = list[tuple[str, str, Any]]
"""Column, operator (`=`, `>=`, `in` …) and value, as text; all must hold."""

_FILE_BYTES = 512 << 20  # of a frame in memory; some 100 MB of Parquet


def replace_partitions(path: Path, by: Sequence[str], rows: pl.LazyFrame, partitions: Partitions | None) -> None:
    """Puts the rows in place of the `partitions` (of all, for None), which they must be of.

    Whatever fails, the table stays as it was; the files that were not committed go with the next vacuum. Of two that
    replace the same partitions at once, the later commit's rows stay.
    """
    written = _write(path, by, rows)
    # Two builds of a partition that has no file yet would not conflict in Delta's eyes, and both add theirs.
    with file_lock(path):
        committed(
            path,
            lambda table: table.create_write_transaction(written, "overwrite", table.schema(), list(by), partitions),
        )


def _write(path: Path, by: Sequence[str], rows: pl.LazyFrame) -> list[AddAction | RemoveAction]:
    values: dict[str, dict[str, str]] = {}
    sunk: list[Any] = []

    def name(file: Any) -> str:
        keys = file.partition_keys.row(0, named=True) if by else {}
        of = {column: str(value) for column, value in keys.items()}
        relative = "/".join([*(f"{column}={value}" for column, value in of.items()), f"{uuid4()}.parquet"])
        values[relative] = of
        return relative

    rows.sink_parquet(
        pl.PartitionBy(
            path,
            file_path_provider=name,
            key=list(by) or None,
            include_key=False if by else None,
            approximate_bytes_per_file=_FILE_BYTES,
        ),
        compression="zstd",
        compression_level=1,
        mkdir=True,
        engine="streaming",
        sinked_paths_callback=lambda found: sunk.extend(found.paths),
    )
    now = int(time.time() * 1000)
    files = ((str(Path(file.path).relative_to(path)), file) for file in sunk)
    return [
        AddAction(file, sink.num_bytes, values[file], now, True, json.dumps({"numRecords": sink.num_rows}))
        for file, sink in files
    ]
