"""Replaces whole partitions of a table by files that Polars' own sink writes, in one commit.

Polars writes partitioned Parquet faster than deltalake does, because it writes from the streaming engine's threads and
without a conversion to Arrow. deltalake commits the written files. The row counts go to the log, but not the smallest
and largest values, because a partition is read whole.
"""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import polars as pl
from deltalake.transaction import AddAction, RemoveAction

from city.file_lock import file_lock
from city.lake.retry import commit_with_retry

if TYPE_CHECKING:
    from polars.io.partition import FileProviderArgs, SinkedPath

Partitions = list[tuple[str, str, str | list[str]]]
"""Conditions that must all hold: column, operator (`=`, `>=`, `in` …) and value, as text."""

_FILE_BYTES = 512 << 20  # bytes of a frame in memory; about 100 MB of Parquet


def replace_partitions(
    path: Path, by: Sequence[str], rows: Iterable[pl.LazyFrame], partitions: Partitions | None
) -> None:
    """Replaces the rows of the `partitions` (of all, for None) by `rows`, which must belong to them.

    The frames of `rows` are computed one after the other, and committed together. After any failure the table is as
    before, and the next vacuum deletes the files that were not committed. When two processes replace the same
    partitions at the same time, the rows of the later commit stay.
    """
    actions = [action for frame in rows for action in _write_files(path, by, frame)]
    # Delta sees no conflict between two builds of a partition without files, and both builds would add their files.
    with file_lock(path):
        commit_with_retry(
            path,
            lambda table: table.create_write_transaction(actions, "overwrite", table.schema(), list(by), partitions),
        )


def _write_files(path: Path, by: Sequence[str], rows: pl.LazyFrame) -> list[AddAction | RemoveAction]:
    values: dict[str, dict[str, str]] = {}
    sunk: list[SinkedPath] = []

    def name(file: "FileProviderArgs") -> str:
        keys = file.partition_keys.row(0, named=True) if by else {}
        partition = {column: str(value) for column, value in keys.items()}
        relative = "/".join([*(f"{column}={value}" for column, value in partition.items()), f"{uuid4()}.parquet"])
        values[relative] = partition
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
        sinked_paths_callback=lambda sinked: sunk.extend(sinked.paths),
    )
    now = int(time.time() * 1000)
    files = ((str(Path(file.path).relative_to(path)), file) for file in sunk)
    return [
        AddAction(file, sink.num_bytes, values[file], now, True, json.dumps({"numRecords": sink.num_rows}))
        for file, sink in files
    ]
